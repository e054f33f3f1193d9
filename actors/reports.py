"""What actors tell the platform, and the small interface through which they do (the platform hands it to them)."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from raymaker.actors.runtime.base import LogLine
from raymaker.actors.spec import Standing

FAILURE_REASON_CHARS = 1024
"""SageMaker's limit on FailureReason."""


class Outcome(enum.Enum):
    """How an attempt at a training job ended."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    TIMED_OUT = "MaxRuntimeExceeded"


class Source(enum.StrEnum):
    """Where a number comes from."""

    LOG = "Log"
    """A metric definition found it in the log."""
    EXCHANGE = "Exchange"
    """A container told its exchange."""
    RESOURCES = "Resources"
    """The platform measured what a container uses."""
    EVALUATION = "Evaluation"
    """An evaluation came to it."""


@dataclass(frozen=True)
class Metric:
    """One number said by a job, or of it. `time` is epoch seconds, `step` the job's own count where it says one."""

    name: str
    value: float
    time: float
    step: int | None = None
    rank: int | None = None
    """Which container said it; None where that is not known."""
    source: Source = Source.LOG


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
    start: int = 0
    """Which start of the attempt's instances this is about (`TrainingSpec.start`)."""
    revision: int = 0
    """Which revision of the job the containers were started with, or were told."""


class UpdateStage(enum.Enum):
    """How far a change of a training job is, as its machines tell."""

    APPLIED = "Applied"
    """It is in force, in the containers that were there before."""
    RESTARTING = "Restarting"
    """The containers are about to be replaced. It is in force once they train."""
    MOVING = "Moving"
    """The machines are given up, with all checkpoints stored; the job starts again on others."""
    FAILED = "Failed"
    """It cannot be made, and the job goes on as before."""


@dataclass(frozen=True)
class UpdateReport:
    """What became of one change. `reason` says why it failed, `heard_by` which ranks were told of it."""

    job_name: str
    attempt: int
    revision: int
    stage: UpdateStage
    reason: str = ""
    heard_by: tuple[int, ...] = ()


@dataclass(frozen=True)
class Latency:
    """How long the answers of one variant took, over the last minute."""

    count: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True)
class FleetSignals:
    """How one fleet behind a router answered over the last minute.

    `client_errors` are answers that blame the request (4xx), `server_errors` all that failed otherwise.
    """

    count: int
    client_errors: int
    server_errors: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True)
class Activity:
    """The load of one replica of an endpoint's front. Times are epoch seconds.

    `last_request_at` is when a request last came or ended, or else when the replica started.
    """

    endpoint_name: str
    replica_id: str
    time: float
    pending_count: int
    last_request_at: float
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    """By variant; those that did not answer lately are not among them."""
    fleets: Mapping[str, FleetSignals] = field(default_factory=dict)
    """By the fleet's name, where the replica is a router's; those that were not asked lately are not among them."""


class ReportRefused(Exception):
    """The platform has a later attempt, or the job has ended: this attempt must stop and touch nothing more."""


class JobReporter(Protocol):
    """How a training job speaks. Each call is durable when it returns; it retries while the platform is away."""

    def greet(self) -> None:
        """Find the way to the platform, so that the next call need not."""

    def report(self, report: JobReport) -> None:
        """Record one step. Raises ReportRefused where the attempt is no longer the job's."""

    def begin_start(self, job_name: str, attempt: int, message: str) -> Standing:
        """Begin the next start of an attempt's instances, and fence the one before.

        Tells what the job is to run now; its spec has the start's number, from 1. `message` says for people why there
        is another. Raises ReportRefused where the attempt is no longer the job's.
        """

    def standing(self, job_name: str, attempt: int) -> Standing:
        """Tell what the job is to run now. Raises ReportRefused where the attempt is no longer the job's."""

    def report_update(self, report: UpdateReport) -> bool:
        """Record what became of a change; False where the change is no longer wanted, so that nothing may follow.

        Raises ReportRefused where the attempt is no longer the job's.
        """

    def note(self, job_name: str, attempt: int, kind: str, message: str) -> None:
        """Record an event of the job that is no step of it, such as trouble with a checkpoint. `kind` is CamelCase."""

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

    def activity(self, activity: Activity) -> None:
        """Tell of a replica's load."""

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines to a log stream."""


def shorten(reason: str) -> str:
    """Cut a reason to SageMaker's limit, keeping its beginning and its end: both say what happened."""
    if len(reason) <= FAILURE_REASON_CHARS:
        return reason
    head, tail = FAILURE_REASON_CHARS // 3, FAILURE_REASON_CHARS - FAILURE_REASON_CHARS // 3 - 5
    return f"{reason[:head]} ... {reason[-tail:]}"
