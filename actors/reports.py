"""What actors tell the platform, and the small interface through which they do (the platform hands it to them)."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from raymaker.actors.runtime.base import LogLine


class Outcome(enum.Enum):
    """How an attempt at a training job ended."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    TIMED_OUT = "MaxRuntimeExceeded"


@dataclass(frozen=True)
class Metric:
    """One number said by a job. `time` is epoch seconds."""

    name: str
    value: float
    time: float


@dataclass(frozen=True)
class JobReport:
    """One step of one attempt. `phase` is SageMaker's secondary status; `outcome` is set on the last report only.

    `time` is epoch seconds. `model_uri` is where model data was stored, None where nothing was.
    """

    job_name: str
    attempt: int
    phase: str
    message: str
    time: float
    outcome: Outcome | None = None
    failure_reason: str | None = None
    exit_code: int | None = None
    model_uri: str | None = None
    image_digest: str | None = None
    training_started_at: float | None = None
    training_ended_at: float | None = None
    details: Mapping[str, str] = field(default_factory=dict)


class ReportRefused(Exception):
    """The platform has a later attempt, or the job has ended: this attempt must stop and touch nothing more."""


class JobReporter(Protocol):
    """How a training job speaks. Each call is durable when it returns; it retries while the platform is away."""

    def report(self, report: JobReport) -> None:
        """Record one step. Raises ReportRefused where the attempt is no longer the job's."""

    def metrics(self, job_name: str, attempt: int, metrics: Sequence[Metric]) -> None:
        """Record numbers read from the log."""

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines to a log stream. Lines not later than the stream's last are dropped, so repeats are safe."""

    def last_log_time(self, group: str, stream: str) -> int:
        """The time (epoch nanoseconds) of the stream's last line, 0 where it has none."""


class EndpointReporter(Protocol):
    """How an endpoint's replicas speak. Best effort: a lost report never fails a request."""

    def event(self, endpoint_name: str, generation: int, message: str, *, failed: bool) -> None:
        """Tell what a replica went through; `failed` marks a scoring container that did not start or died."""

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines to a log stream."""
