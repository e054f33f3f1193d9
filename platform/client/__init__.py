"""The Python client: `Client`, and handles for training jobs and endpoints. Knows only what the API says."""

from raymaker.platform.client.asynchronous import AcceptedInvocation
from raymaker.platform.client.captured import Captured
from raymaker.platform.client.client import Client
from raymaker.platform.client.endpoint import Endpoint
from raymaker.platform.client.errors import (
    EndpointFailed,
    EvaluationFailed,
    InvocationFailed,
    JobFailed,
    PlatformUnreachable,
    RaymakerError,
    RequestRefused,
    UpdateFailed,
    WaitTimeout,
    WrongArgument,
)
from raymaker.platform.client.job import Metric, TrainingJob
from raymaker.platform.client.payload import Answer as ScoringAnswer
from raymaker.platform.client.streaming import StreamedAnswer

__all__ = [
    "AcceptedInvocation",
    "Captured",
    "Client",
    "Endpoint",
    "EndpointFailed",
    "EvaluationFailed",
    "InvocationFailed",
    "JobFailed",
    "Metric",
    "PlatformUnreachable",
    "RaymakerError",
    "RequestRefused",
    "ScoringAnswer",
    "StreamedAnswer",
    "TrainingJob",
    "UpdateFailed",
    "WaitTimeout",
    "WrongArgument",
]
