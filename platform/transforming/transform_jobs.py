"""A transform job's record, and every legal move of it as pure functions: (record, what happened, now) -> next record.

A move that changes nothing returns a record equal to the one it was given. Writing it down is `database/`'s matter.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from raymaker.actors.reports import Outcome, ReportRefused, shorten
from raymaker.actors.spec import SourceSpec
from raymaker.platform.phases import IllegalMove
from raymaker.platform.transitions import MAX_ATTEMPTS
from raymaker.serving.transform.reports import Phase, Progress, TransformReport

TOLD_FAILURES = 3
"""Of so many objects that failed the job's FailureReason says why."""


class TransformJobStatus(enum.StrEnum):
    """Where a transform job is, in SageMaker's words."""

    IN_PROGRESS = "InProgress"
    """Accepted and not ended; the message says what it is doing."""
    STOPPING = "Stopping"
    """Asked to stop; its machines are ending."""
    COMPLETED = "Completed"
    """Every object's output is stored."""
    FAILED = "Failed"
    """Some object's output is missing; FailureReason says why."""
    STOPPED = "Stopped"
    """Ended because it was asked to, or because its time was up; the outputs that were stored stay."""

    @property
    def ended(self) -> bool:
        """Whether this is a terminal state: nothing moves a job out of it."""
        return self not in {TransformJobStatus.IN_PROGRESS, TransformJobStatus.STOPPING}


_ENDS = {
    Outcome.COMPLETED: (TransformJobStatus.COMPLETED, "Transform job completed"),
    Outcome.FAILED: (TransformJobStatus.FAILED, "Transform job failed"),
    Outcome.STOPPED: (TransformJobStatus.STOPPED, "Transform job stopped"),
    Outcome.TIMED_OUT: (TransformJobStatus.STOPPED, "Transform job runtime exceeded MaxRuntimeInSeconds"),
}


@dataclass(frozen=True)
class TransformModel:
    """What the job's container runs, resolved once: the job outlives the deletion of its model."""

    image: str | None = None
    source: SourceSpec | None = None
    model_uri: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    additional_models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MachineState:
    """What one machine of the current attempt has said last. `outcome` is None while it is at work."""

    phase: Phase = Phase.STARTING
    progress: Progress = field(default_factory=Progress)
    outcome: Outcome | None = None
    failure_reason: str | None = None
    failures: tuple[str, ...] = ()
    """Why objects failed, the first few."""


@dataclass(frozen=True)
class TransformJobRecord:
    """One transform job. `version` guards updates: a write goes through only where it is still the one that was read.

    `attempt` is the only attempt whose reports count; 0 while none was started. `machines` are that attempt's.
    """

    name: str
    arn: str
    account: str
    request: Mapping[str, Any]
    model: TransformModel
    status: TransformJobStatus
    message: str
    machines: tuple[MachineState, ...]
    created_at: float
    modified_at: float
    attempt: int = 0
    version: int = 1
    started_at: float | None = None
    ended_at: float | None = None
    failure_reason: str | None = None
    stop_requested_at: float | None = None

    @property
    def progress(self) -> Progress:
        """How far all machines are together."""
        parts = [dataclasses.astuple(machine.progress) for machine in self.machines]
        return Progress(*(sum(column) for column in zip(*parts, strict=True)))

    @property
    def is_waiting(self) -> bool:
        """Whether the job waits for machines: it was never started."""
        return self.attempt == 0 and not self.status.ended

    @property
    def has_begun(self) -> bool:
        """Whether any machine has come past its start in this attempt."""
        return any(machine.phase is not Phase.STARTING for machine in self.machines)


def create_transform_job(
    name: str, arn: str, account: str, request: Mapping[str, Any], *, model: TransformModel, now: float
) -> TransformJobRecord:
    """Return the record of a job that was just accepted."""
    return TransformJobRecord(
        name=name,
        arn=arn,
        account=account,
        request=request,
        model=model,
        status=TransformJobStatus.IN_PROGRESS,
        message="Waiting for the platform to place the job",
        machines=(),
        created_at=now,
        modified_at=now,
    )


def mark_pending(record: TransformJobRecord, reason: str, now: float) -> TransformJobRecord:
    """Say why a job that was never started has to wait. Raises IllegalMove once it was started or has ended."""
    _require_never_started(record, "be queued")
    return record if reason == record.message else dataclasses.replace(record, message=reason, modified_at=now)


def start_attempt(record: TransformJobRecord, now: float) -> TransformJobRecord:
    """Begin the first attempt of a waiting job. Raises IllegalMove once one was begun, or after a stop."""
    _require_never_started(record, "be started")
    return _begin_attempt(record, "Starting the transform job", now)


def request_stop(record: TransformJobRecord, now: float) -> TransformJobRecord:
    """Ask a job to stop: at once where nothing was started, else by way of Stopping. Asking twice changes nothing.

    Raises IllegalMove when the job has ended.
    """
    if record.status.ended:
        _refuse_move(record, "be stopped")
    if record.status is TransformJobStatus.STOPPING:
        return record
    asked = dataclasses.replace(record, stop_requested_at=now, modified_at=now)
    if record.attempt == 0:
        return _end(asked, Outcome.STOPPED, now)
    return dataclasses.replace(asked, status=TransformJobStatus.STOPPING, message="Stopping the transform job")


def check_attempt(record: TransformJobRecord, attempt: int) -> None:
    """Raise ReportRefused where the attempt is not the job's, or the job has ended."""
    if attempt != record.attempt or attempt == 0:
        raise ReportRefused(
            f"attempt {attempt} of transform job {record.name} is not the job's: attempt {record.attempt} is"
        )
    if record.status.ended:
        raise ReportRefused(f"transform job {record.name} has ended: it is {record.status}")


def apply_report(record: TransformJobRecord, report: TransformReport, now: float) -> TransformJobRecord:
    """Take one report of a machine of the job's current attempt; the job ends with the last machine's last one.

    Raises ReportRefused for another attempt's report and after the end, but not for a last report that comes again.
    """
    if report.outcome is not None and record.status.ended and _has_said(record, report):
        return record
    check_attempt(record, report.attempt)
    if report.phase is Phase.INTERRUPTED:
        return lose_attempt(record, report.attempt, report.message, now)
    machines = list(record.machines)
    machines[report.machine_index] = _hear(machines[report.machine_index], report)
    heard = dataclasses.replace(record, machines=tuple(machines), modified_at=now)
    if report.phase is Phase.TRANSFORMING and record.started_at is None:
        heard = dataclasses.replace(heard, started_at=now)
    if all(machine.outcome is not None for machine in machines):
        return _end(heard, _outcome_of(heard), now)
    if heard.status is TransformJobStatus.STOPPING:
        return heard
    return dataclasses.replace(heard, message=_say(heard, report))


def lose_attempt(record: TransformJobRecord, attempt: int, reason: str, now: float) -> TransformJobRecord:
    """Give up an attempt whose machine is gone; the next one begins, or the job fails or stops here.

    From this record on the lost attempt is fenced. Losing an attempt that is not the job's, or after the job's end,
    changes nothing.
    """
    if record.status.ended or attempt != record.attempt or attempt == 0:
        return record
    if record.status is TransformJobStatus.STOPPING:
        return _end(record, Outcome.STOPPED, now)
    if attempt >= MAX_ATTEMPTS:
        failure = f"InternalServerError: attempt {attempt} of {MAX_ATTEMPTS} was lost: {reason}"
        return _end(dataclasses.replace(record, failure_reason=failure), Outcome.FAILED, now)
    return _begin_attempt(record, f"Attempt {attempt} was lost and another goes on: {reason}", now)


def news(before: TransformJobRecord, after: TransformJobRecord) -> list[tuple[str, str]]:
    """Tell what of a move is worth an event of the job: kind and message of each."""
    if after.status is not before.status:
        reason = f": {after.failure_reason}" if after.failure_reason else ""
        return [(after.status, f"{after.message}{reason}")]
    if after.attempt != before.attempt:
        return [("Restarting" if before.attempt else "Starting", after.message)]
    if after.attempt == 0:
        return [("Pending", after.message)] if after.message != before.message else []
    if after.has_begun and not before.has_begun:
        return [("Transforming", after.message)]
    if _tenths(after.progress) > _tenths(before.progress):
        return [("Progress", after.progress.describe())]
    return []


def _tenths(progress: Progress) -> int:
    """How many tenths of the objects are through."""
    return 10 * (progress.done_count + progress.failed_count) // max(1, progress.object_count)


def _begin_attempt(record: TransformJobRecord, message: str, now: float) -> TransformJobRecord:
    """Begin the next attempt. What its machines' predecessors have finished is known to be so until they speak."""
    count = record.request["TransformResources"]["InstanceCount"]
    known = record.machines or (MachineState(),) * count
    machines = tuple(MachineState(progress=machine.progress, failures=machine.failures) for machine in known)
    return dataclasses.replace(record, attempt=record.attempt + 1, message=message, machines=machines, modified_at=now)


def _hear(machine: MachineState, report: TransformReport) -> MachineState:
    failures = [f"{it.name}: {it.failure}" for it in report.finished if it.failure is not None]
    return MachineState(
        report.phase,
        report.progress,
        report.outcome,
        report.failure_reason,
        tuple(dict.fromkeys((*machine.failures, *failures)))[:TOLD_FAILURES],
    )


def _has_said(record: TransformJobRecord, report: TransformReport) -> bool:
    """Tell whether this is the repeat of a machine's last report, whose acknowledgement was lost."""
    if report.attempt != record.attempt or report.machine_index >= len(record.machines):
        return False
    return record.machines[report.machine_index].outcome is report.outcome


def _say(record: TransformJobRecord, report: TransformReport) -> str:
    """Say what the job does now: one machine's own words, or those of all together."""
    if len(record.machines) == 1 or not record.has_begun:
        return report.message
    return f"Transforming on {len(record.machines)} instances: {record.progress.describe()}"


def _outcome_of(record: TransformJobRecord) -> Outcome:
    """Make one outcome of those of all machines: the worst."""
    outcomes = {machine.outcome for machine in record.machines}
    if Outcome.FAILED in outcomes:
        return Outcome.FAILED
    for outcome in (Outcome.TIMED_OUT, Outcome.STOPPED):
        if outcome in outcomes:
            return outcome
    return Outcome.FAILED if record.progress.failed_count else Outcome.COMPLETED


def _end(record: TransformJobRecord, outcome: Outcome, now: float) -> TransformJobRecord:
    """Reach the one terminal state."""
    status, message = _ENDS[outcome]
    reason = record.failure_reason
    if outcome is not Outcome.STOPPED:
        reason = reason or _reason(record, outcome)
    reason = reason and shorten(reason)
    return dataclasses.replace(
        record, status=status, message=message, failure_reason=reason, ended_at=now, modified_at=now
    )


def _reason(record: TransformJobRecord, outcome: Outcome) -> str | None:
    """Say why a job ended otherwise than well."""
    for index, machine in enumerate(record.machines):
        if machine.failure_reason is not None:
            where = f" (instance {index + 1} of {len(record.machines)})" if len(record.machines) > 1 else ""
            return f"{machine.failure_reason}{where}"
    progress = record.progress
    if outcome is Outcome.TIMED_OUT:
        return f"MaxRuntimeInSeconds was reached with {progress.describe()}. What was stored stays"
    if not progress.failed_count:
        return None
    told = "; ".join(failure for machine in record.machines for failure in machine.failures)
    return (
        f"ClientError: {progress.failed_count} of {progress.object_count} objects could not be transformed; the other "
        f"outputs are stored. {told}"
    )


def _require_never_started(record: TransformJobRecord, move: str) -> None:
    if record.status is not TransformJobStatus.IN_PROGRESS or record.attempt != 0:
        _refuse_move(record, move)


def _refuse_move(record: TransformJobRecord, move: str) -> NoReturn:
    raise IllegalMove(f"transform job {record.name} cannot {move}: it is {record.status}, attempt {record.attempt}")
