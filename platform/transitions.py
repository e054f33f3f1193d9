"""Every legal move of a training job or an endpoint, as pure functions: (record, what happened, now) -> next record.

A move that changes nothing returns a record equal to the one it was given. Writing the next record down, guarded
against whoever wrote meanwhile, is `database/`'s matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raymaker.actors.reports import JobReport, Outcome, ReportRefused
from raymaker.platform.changing import job_updates
from raymaker.platform.hosting import rollout
from raymaker.platform.phases import PHASE_ORDER, REPORTABLE, IllegalMove, enter, refuse_move
from raymaker.platform.pools import keeping
from raymaker.platform.records import (
    Deployment,
    EndpointRecord,
    EndpointStatus,
    Rollout,
    RolloutStage,
    SecondaryStatus,
    StatusTransition,
    TrainingJobRecord,
    TrainingJobStatus,
)

MAX_ATTEMPTS = 3
"""How often a job is started in all when machines fail under it and its request has no RetryStrategy."""

_ENDS: Mapping[Outcome, tuple[TrainingJobStatus, SecondaryStatus]] = {
    Outcome.COMPLETED: (TrainingJobStatus.COMPLETED, SecondaryStatus.COMPLETED),
    Outcome.FAILED: (TrainingJobStatus.FAILED, SecondaryStatus.FAILED),
    Outcome.STOPPED: (TrainingJobStatus.STOPPED, SecondaryStatus.STOPPED),
    Outcome.TIMED_OUT: (TrainingJobStatus.STOPPED, SecondaryStatus.MAX_RUNTIME_EXCEEDED),
}


def create_training_job(name: str, arn: str, account: str, request: Mapping[str, Any], now: float) -> TrainingJobRecord:
    """Return the record of a job that was just accepted."""
    return TrainingJobRecord(
        name=name,
        arn=arn,
        account=account,
        request=request,
        status=TrainingJobStatus.IN_PROGRESS,
        secondary=SecondaryStatus.STARTING,
        transitions=(
            StatusTransition(SecondaryStatus.STARTING, now, None, "Waiting for the platform to place the job"),
        ),
        created_at=now,
        modified_at=now,
    )


def mark_pending(record: TrainingJobRecord, reason: str, now: float) -> TrainingJobRecord:
    """Say why a job has to wait for machines. Raises IllegalMove once it has them or has ended."""
    _require_waiting(record, "be queued")
    return enter(record, SecondaryStatus.PENDING, reason, now)


def start_attempt(
    record: TrainingJobRecord, now: float, node_id: str | None = None, pool_id: str | None = None
) -> TrainingJobRecord:
    """Begin the attempt for which a job waited, on the machines of a warm pool where one is named.

    Raises IllegalMove once it was begun, or after a stop.
    """
    _require_waiting(record, "be started")
    started = enter(record, SecondaryStatus.STARTING, "Starting the training job", now)
    begun = dataclasses.replace(started, attempt=max(1, record.attempt), start=0, node_id=node_id, modified_at=now)
    return keeping.begin(begun, pool_id)


def begin_start(record: TrainingJobRecord, attempt: int, message: str, now: float) -> TrainingJobRecord:
    """Begin the next start of an attempt's instances. From this record on the start before is fenced.

    A job that is to stop goes on stopping: its new instances hear of that. Raises ReportRefused for another attempt and
    after the end.
    """
    _refuse_other_attempt(record, attempt)
    if record.status.ended:
        raise ReportRefused(f"training job {record.name} has ended: it is {record.status} ({record.secondary})")
    begun = dataclasses.replace(
        record, start=record.start + 1, started_at=None, ended_at=None, node_id=None, modified_at=now
    )
    if record.status is TrainingJobStatus.STOPPING:
        return begun
    return enter(begun, SecondaryStatus.RESTARTING if record.start else SecondaryStatus.STARTING, message, now)


def request_stop(record: TrainingJobRecord, now: float, *, deletes_model: bool = False) -> TrainingJobRecord:
    """Ask a job to stop: at once where it waits, else by way of Stopping. Asking twice changes nothing.

    With `deletes_model` no model is to be left, which may be asked later too. Raises IllegalMove when the job has
    ended, and when it is too late to leave the model out.
    """
    if record.status.ended:
        refuse_move(record, "be stopped")
    if deletes_model and not record.deletes_model:
        if record.secondary is SecondaryStatus.UPLOADING:
            refuse_move(record, "be stopped without its model, which is being stored")
        record = dataclasses.replace(record, deletes_model=True, modified_at=now)
    if record.status is TrainingJobStatus.STOPPING:
        return record
    asked = dataclasses.replace(record, stop_requested_at=now)
    if record.is_waiting:
        return end(asked, Outcome.STOPPED, "Training job stopped before it was started", now)
    stopping = enter(asked, SecondaryStatus.STOPPING, "Stopping the training job", now)
    stopped = dataclasses.replace(stopping, status=TrainingJobStatus.STOPPING)
    return job_updates.give_up(stopped, "the job was asked to stop", now)


def apply_report(record: TrainingJobRecord, report: JobReport, now: float) -> TrainingJobRecord:
    """Take one report of the job's current attempt.

    A repeat, or a phase that the attempt has left behind, moves nothing. An attempt on one instance belongs to the
    machine that it began on: come up on another it is lost, since its container may still run there. One on several
    goes anywhere with its next start, which fences the one before.

    Raises ReportRefused for another attempt's report, for an earlier start's and for one after the end, ValueError for
    a phase that is none.
    """
    _refuse_other_attempt(record, report.attempt)
    if report.start < record.start:
        raise ReportRefused(
            f"start {report.start} of attempt {report.attempt} of training job {record.name} is over: "
            f"start {record.start} is the job's"
        )
    if record.status.ended:
        return _hear_again(record, report)
    machine = report.details.get("node")
    if report.start == 0 and machine and record.node_id and machine != record.node_id:
        return lose_attempt(record, report.attempt, f"it began on {record.node_id} and came up on {machine}", now)
    learned = _learn(record, report)
    if report.outcome is not None:
        return end(learned, report.outcome, report.message, now)
    phase = SecondaryStatus(report.phase)
    if phase is SecondaryStatus.INTERRUPTED:
        return lose_attempt(record, report.attempt, report.message, now)
    if phase not in REPORTABLE:
        raise ValueError(f"phase {report.phase} of training job {record.name} is not one that an attempt can be in")
    if phase is SecondaryStatus.TRAINING:
        learned = job_updates.trains_with(learned, report.revision, now)
    if PHASE_ORDER.index(phase) < PHASE_ORDER.index(record.secondary):
        return learned
    return enter(learned, phase, report.message, now)


def lose_attempt(record: TrainingJobRecord, attempt: int, reason: str, now: float) -> TrainingJobRecord:
    """Give up an attempt whose machine or container is gone; the next one begins, or the job fails or stops here.

    From this record on the lost attempt is fenced. Losing an attempt that is not the job's, or after the job's end,
    changes nothing.
    """
    if record.status.ended or attempt != record.attempt or attempt == 0:
        return record
    if record.status is TrainingJobStatus.STOPPING:
        message = f"Training job stopped. Its machine was lost meanwhile: {reason}"
        return end(keeping.lose(record, now), Outcome.STOPPED, message, now)
    if job_updates.is_moving(record):
        return job_updates.move(record, now)
    if attempt - record.move_count >= max_attempts(record):
        count = max_attempts(record) + record.move_count
        failure = f"InternalServerError: attempt {attempt} of {count} was lost: {reason}"
        return end(dataclasses.replace(record, failure_reason=failure), Outcome.FAILED, "Training job failed", now)
    restarting = enter(record, SecondaryStatus.RESTARTING, f"Attempt {attempt} was lost: {reason}", now)
    return dataclasses.replace(restarting, attempt=attempt + 1, start=0, started_at=None, ended_at=None, node_id=None)


def max_attempts(record: TrainingJobRecord) -> int:
    """How often the job may be started in all: RetryStrategy's retries and the first start."""
    strategy = record.request.get("RetryStrategy")
    return int(strategy["MaximumRetryAttempts"]) + 1 if strategy else MAX_ATTEMPTS


def create_endpoint(
    name: str,
    arn: str,
    account: str,
    desired: Deployment,
    now: float,
    *,
    deployment_config: Mapping[str, Any] | None = None,
) -> EndpointRecord:
    """Return the record of an endpoint that was just accepted. `deployment_config` is for updates to retain."""
    return EndpointRecord(
        name=name,
        arn=arn,
        account=account,
        status=EndpointStatus.CREATING,
        generation=1,
        desired=desired,
        created_at=now,
        modified_at=now,
        deployment_config=deployment_config,
    )


def update_endpoint(
    record: EndpointRecord, desired: Deployment, now: float, deployment_config: Mapping[str, Any] | None = None
) -> EndpointRecord:
    """Ask for another deployment. Raises IllegalMove while an earlier request is under way."""
    if record.status not in _UPDATABLE:
        raise IllegalMove(f"endpoint {record.name} cannot be updated: it is {record.status}")
    is_routed = record.deployed is not None and rollout.plan_of(deployment_config, desired).is_gradual
    desired = dataclasses.replace(desired, revision=record.generation + 1, is_routed=is_routed)
    return dataclasses.replace(
        record,
        status=EndpointStatus.UPDATING,
        generation=record.generation + 1,
        desired=desired,
        stage=_first_stage(record.deployed, desired),
        deployment_config=deployment_config,
        rollout=Rollout(now),
        failure_reason=None,
        modified_at=now,
    )


def change_weights(record: EndpointRecord, changes: Mapping[str, Mapping[str, Any]], now: float) -> EndpointRecord:
    """Ask for other weights and instance counts of the variants that are there; `changes` are fields by variant.

    The revision stays, so nothing is made anew. Raises IllegalMove while the endpoint is not in service.
    """
    if record.status is not EndpointStatus.IN_SERVICE:
        raise IllegalMove(f"endpoint {record.name} cannot be changed: it is {record.status}")
    variants = tuple(dataclasses.replace(v, **changes.get(v.name, {})) for v in record.desired.variants)
    return dataclasses.replace(
        record,
        status=EndpointStatus.UPDATING,
        generation=record.generation + 1,
        desired=dataclasses.replace(record.desired, variants=variants),
        rollout=None,
        failure_reason=None,
        modified_at=now,
    )


def delete_endpoint(record: EndpointRecord, now: float) -> EndpointRecord:
    """Ask for an endpoint to be taken away. Always legal; asking twice changes nothing."""
    if record.status is EndpointStatus.DELETING:
        return record
    return dataclasses.replace(record, status=EndpointStatus.DELETING, modified_at=now)


def endpoint_healthy(
    record: EndpointRecord, generation: int, running_counts: Mapping[str, int], now: float
) -> EndpointRecord:
    """Take the news that a generation answers on all its replicas. An older generation's news changes nothing."""
    if generation != record.generation or record.status in {EndpointStatus.DELETING, EndpointStatus.FAILED}:
        return record
    if record.status is EndpointStatus.IN_SERVICE:
        return dataclasses.replace(record, running_counts=running_counts)
    return dataclasses.replace(
        record,
        status=EndpointStatus.IN_SERVICE,
        deployed=record.desired,
        stage=None,
        rollout=None,
        running_counts=running_counts,
        modified_at=now,
    )


def endpoint_failed(record: EndpointRecord, generation: int, reason: str, now: float) -> EndpointRecord:
    """Take the news that a generation cannot come up: an update goes back, a first deployment has failed.

    One that was in service stays so, since its replicas are replaced. An older generation's news changes nothing.
    """
    if generation != record.generation or record.status not in _COMING_UP:
        return record
    if record.status is EndpointStatus.UPDATING and record.deployed is not None:
        has_traffic = record.stage is RolloutStage.SHIFTING and not record.desired.is_simple
        is_way_open = has_traffic and not record.deployed.is_simple  # else the front, which failed, is what has it
        return dataclasses.replace(
            record,
            status=EndpointStatus.ROLLING_BACK,
            generation=record.generation + 1,
            desired=record.desired if is_way_open else record.deployed,
            stage=RolloutStage.RETURNING if is_way_open else None,
            failure_reason=reason,
            modified_at=now,
        )
    rolling_back = record.status is EndpointStatus.ROLLING_BACK
    status = EndpointStatus.UPDATE_ROLLBACK_FAILED if rolling_back else EndpointStatus.FAILED
    if rolling_back:
        reason = f"{record.failure_reason} Going back failed too: {reason}"
    desired = record.deployed if rolling_back and record.deployed is not None else record.desired
    return dataclasses.replace(
        record, status=status, desired=desired, failure_reason=reason, running_counts={}, stage=None, modified_at=now
    )


_UPDATABLE = frozenset({EndpointStatus.IN_SERVICE, EndpointStatus.FAILED, EndpointStatus.UPDATE_ROLLBACK_FAILED})
_COMING_UP = frozenset({EndpointStatus.CREATING, EndpointStatus.UPDATING, EndpointStatus.ROLLING_BACK})


def _first_stage(deployed: Deployment | None, desired: Deployment) -> RolloutStage | None:
    """Where an update begins. A front that holds its own containers takes over by itself, as they come up."""
    if deployed is None or (deployed.is_simple and desired.is_simple):
        return None
    return RolloutStage.SHIFTING if desired.is_simple else RolloutStage.PREPARING


def _require_waiting(record: TrainingJobRecord, move: str) -> None:
    if record.status is not TrainingJobStatus.IN_PROGRESS or not record.is_waiting:
        refuse_move(record, move)


def _refuse_other_attempt(record: TrainingJobRecord, attempt: int) -> None:
    if attempt != record.attempt or attempt == 0:
        raise ReportRefused(
            f"attempt {attempt} of training job {record.name} is not the job's: attempt {record.attempt} is"
        )


def _hear_again(record: TrainingJobRecord, report: JobReport) -> TrainingJobRecord:
    """Take the repeat of a job's last report, whose acknowledgement was lost; refuse anything else after the end."""
    if report.outcome is not None and _ENDS[report.outcome] == (record.status, record.secondary):
        return record
    raise ReportRefused(f"training job {record.name} has ended: it is {record.status} ({record.secondary})")


def _learn(record: TrainingJobRecord, report: JobReport) -> TrainingJobRecord:
    """Keep the facts that a report carries; what it leaves out stays as it is."""
    facts = {
        "started_at": report.training_started_at,
        "ended_at": report.training_ended_at,
        "failure_reason": report.failure_reason,
        "exit_code": report.exit_code,
        "model_uri": report.model_uri,
        "image_digest": report.image_digest,
        "node_id": report.details.get("node") or None,
    }
    return dataclasses.replace(record, **{name: fact for name, fact in facts.items() if fact is not None})  # type: ignore[arg-type]


def end(record: TrainingJobRecord, outcome: Outcome, message: str, now: float) -> TrainingJobRecord:
    """Reach the one terminal state that an outcome leads to."""
    status, secondary = _ENDS[outcome]
    ended = enter(job_updates.give_up(record, "the job ended before", now), secondary, message, now)
    last = dataclasses.replace(ended.transitions[-1], ended_at=now)
    ended = dataclasses.replace(
        ended,
        status=status,
        transitions=(*ended.transitions[:-1], last),
        ended_at=now if record.ended_at is None else record.ended_at,
        modified_at=now,
    )
    return keeping.after_end(ended, outcome, now)
