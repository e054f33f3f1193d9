"""An evaluation's record, and every legal move of it as pure functions: (record, what happened, now) -> next record.

A move that changes nothing returns a record equal to the one it was given. Writing it down is `database/`'s matter.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raymaker.actors.reports import Metric, ReportRefused, Source, shorten
from raymaker.platform.phases import IllegalMove
from raymaker.platform.transitions import MAX_ATTEMPTS
from raymaker.serving.evaluation.metric_names import PREFIX
from raymaker.serving.evaluation.reports import EvaluationReport, Phase

EACH_CHECKPOINT = "EachCheckpoint"
_STEP = re.compile(r"(\d{1,18})\D*$")


class EvaluationStatus(enum.StrEnum):
    """Where an evaluation is."""

    PENDING = "Pending"
    """Waits for a machine; the message says for what."""
    IN_PROGRESS = "InProgress"
    """Its machine is there, or on its way."""
    COMPLETED = "Completed"
    """There are metrics."""
    FAILED = "Failed"
    """There are none; FailureReason says why."""
    STOPPED = "Stopped"
    """It was asked to end."""

    @property
    def ended(self) -> bool:
        """Whether this is a terminal state: nothing moves an evaluation out of it."""
        return self not in {EvaluationStatus.PENDING, EvaluationStatus.IN_PROGRESS}


class Trigger(enum.StrEnum):
    """Why there is an evaluation."""

    CHECKPOINT = "Checkpoint"
    """There was a new checkpoint."""
    END = "End"
    """The job has ended, with a model."""
    REQUEST = "Request"
    """Somebody asked."""


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation. `number` counts those of its job, from 1; `checkpoint` None means the job's model.

    `version` guards updates. `attempt` is the only try whose reports count. Times are epoch seconds; `checkpoint_at` is
    when the checkpoint was written last. `config` is the EvaluationConfig that it was made with.
    """

    job_name: str
    number: int
    config: Mapping[str, Any]
    trigger: Trigger
    created_at: float
    checkpoint: str | None = None
    checkpoint_at: float | None = None
    status: EvaluationStatus = EvaluationStatus.PENDING
    message: str = "Waiting for the platform to place the evaluation"
    attempt: int = 0
    version: int = 1
    started_at: float | None = None
    ended_at: float | None = None
    failure_reason: str | None = None
    record_count: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    distributions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """What is evaluated, in words."""
        return f"checkpoint {self.checkpoint}" if self.checkpoint is not None else "the job's model"

    @property
    def step(self) -> int | None:
        """The number at the end of the checkpoint's name, which is its step where jobs name them so."""
        found = _STEP.search(self.checkpoint or "")
        return int(found[1]) if found else None

    def as_metrics(self) -> list[Metric]:
        """Its metrics as numbers of its job."""
        time = self.ended_at or self.created_at
        return [
            Metric(f"{PREFIX}{name}", value, time, self.step, None, Source.EVALUATION)
            for name, value in self.metrics.items()
        ]


def is_scheduled(request: Mapping[str, Any]) -> bool:
    """Whether a training request has its job evaluated without being asked."""
    config = request.get("EvaluationConfig")
    return config is not None and config.get("Schedule", EACH_CHECKPOINT) == EACH_CHECKPOINT


def retarget(record: EvaluationRecord, checkpoint: str, checkpoint_at: float) -> EvaluationRecord:
    """Have an evaluation that was never started look at a newer checkpoint. Raises IllegalMove once it was."""
    if record.status is not EvaluationStatus.PENDING:
        raise IllegalMove(f"evaluation {record.number} of {record.job_name} is {record.status}: it has its checkpoint")
    return dataclasses.replace(record, checkpoint=checkpoint, checkpoint_at=checkpoint_at)


def mark_pending(record: EvaluationRecord, reason: str) -> EvaluationRecord:
    """Say why an evaluation waits. Raises IllegalMove once it was started."""
    if record.status is not EvaluationStatus.PENDING:
        raise IllegalMove(f"evaluation {record.number} of {record.job_name} cannot be queued: it is {record.status}")
    return record if record.message == reason else dataclasses.replace(record, message=reason)


def start(record: EvaluationRecord, now: float) -> EvaluationRecord:
    """Give an evaluation its machine. Raises IllegalMove where it does not wait for one."""
    if record.status is not EvaluationStatus.PENDING:
        raise IllegalMove(f"evaluation {record.number} of {record.job_name} cannot be started: it is {record.status}")
    message = f"Starting the evaluation of {record.what}"
    return dataclasses.replace(record, status=EvaluationStatus.IN_PROGRESS, message=message, started_at=now)


def stop(record: EvaluationRecord, now: float) -> EvaluationRecord:
    """End an evaluation: whatever its machine tells from now on is refused. Raises IllegalMove once it has ended."""
    if record.status.ended:
        raise IllegalMove(f"evaluation {record.number} of {record.job_name} cannot be stopped: it is {record.status}")
    return dataclasses.replace(record, status=EvaluationStatus.STOPPED, message="Evaluation stopped", ended_at=now)


def begin_attempt(record: EvaluationRecord, now: float) -> EvaluationRecord:
    """Begin another try; one too many fails the evaluation. Raises ReportRefused where it does not run."""
    if record.status is not EvaluationStatus.IN_PROGRESS:
        raise ReportRefused(f"evaluation {record.number} of {record.job_name} is {record.status}")
    if record.attempt >= MAX_ATTEMPTS:
        return _fail(record, f"InternalServerError: its machine was lost {MAX_ATTEMPTS} times", now)
    return dataclasses.replace(record, attempt=record.attempt + 1)


def apply_report(record: EvaluationRecord, report: EvaluationReport, now: float) -> EvaluationRecord:
    """Take one report. Raises ReportRefused for another try's, and after the end, but not for the repeat of a last one.

    An interrupted try leaves the evaluation running: its machine is made again.
    """
    if report.attempt == record.attempt and record.status.value == report.phase.value:
        return record
    if report.attempt != record.attempt or record.status is not EvaluationStatus.IN_PROGRESS:
        raise ReportRefused(
            f"try {report.attempt} of evaluation {record.number} of {record.job_name} does not count: "
            f"try {record.attempt} does, and it is {record.status}"
        )
    match report.phase:
        case Phase.FAILED:
            return _fail(record, report.message, now)
        case Phase.COMPLETED:
            return dataclasses.replace(
                record,
                status=EvaluationStatus.COMPLETED,
                message=report.message,
                ended_at=now,
                record_count=report.record_count,
                metrics=dict(report.metrics),
                distributions=dict(report.distributions),
            )
        case _:
            return dataclasses.replace(record, message=report.message)


def news(before: EvaluationRecord, after: EvaluationRecord) -> list[tuple[str, str]]:
    """Tell what of a move is worth an event of the job: kind and message of each."""
    which = f"evaluation {after.number} of {after.what}"
    if before.status is after.status:
        return []
    match after.status:
        case EvaluationStatus.IN_PROGRESS:
            return [("EvaluationStarted", f"{which} began")]
        case EvaluationStatus.COMPLETED:
            told = ", ".join(f"{name} {value:.4g}" for name, value in list(after.metrics.items())[:SHOWN_METRICS])
            return [("EvaluationCompleted", f"{which}, {after.record_count} records: {told}")]
        case EvaluationStatus.FAILED:
            return [("EvaluationFailed", f"{which} failed: {after.failure_reason}")]
        case _:
            return [("EvaluationStopped", f"{which} was stopped")]


SHOWN_METRICS = 6
"""Of so many metrics an event tells."""


def _fail(record: EvaluationRecord, reason: str, now: float) -> EvaluationRecord:
    return dataclasses.replace(
        record,
        status=EvaluationStatus.FAILED,
        message="Evaluation failed",
        failure_reason=shorten(reason),
        ended_at=now,
    )
