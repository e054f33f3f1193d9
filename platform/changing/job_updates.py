"""Changes of a training job that runs, as pure moves of its record: asked for, under way, in force, or given up.

One at a time. `request` of the record is what is in force: a change that containers are told of is written into it once
one has heard, one that replaces them when they are about to go. What a request asks to change stands in `changes.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raymaker.actors.reports import UpdateReport, UpdateStage
from raymaker.actors.spec import Manner, Revisions
from raymaker.platform.changing.changes import changed_request, manner_of, summarise
from raymaker.platform.changing.update_record import JobUpdate, UpdateStatus
from raymaker.platform.phases import IllegalMove, enter, refuse_move
from raymaker.platform.pools import keeping
from raymaker.platform.records import EventRecord, SecondaryStatus, TrainingJobRecord, TrainingJobStatus

KEPT_COUNT = 100
"""How many changes a record keeps; what happened to those before are events of the job."""


class ChangeUnderWay(IllegalMove):
    """Another change of the job is not made yet: there is one at a time."""


def request_update(
    record: TrainingJobRecord, changes: Mapping[str, Any], requested_by: str, metrics: Mapping[str, float], now: float
) -> TrainingJobRecord:
    """Accept a change of a job that trains. `metrics` are its last numbers.

    A change that concerns no container is in force at once; how long what is kept of a job is kept may change after its
    end too. Raises IllegalMove where the job does not train, and ChangeUnderWay.
    """
    manner = manner_of(record.request, changes)
    if record.open_update is not None:
        under_way = f"revision {record.open_update.revision} is {record.open_update.status}"
        raise ChangeUnderWay(f"training job {record.name} is being changed already: {under_way}")
    is_over = record.status.ended and not keeping.changes_period_only(record, changes)
    if is_over or record.status is TrainingJobStatus.STOPPING:
        refuse_move(record, "be changed")
    if manner is not None and record.secondary is not SecondaryStatus.TRAINING:
        refuse_move(record, "be changed before it trains")
    update = JobUpdate(
        revision=max(record.revision, *(update.revision for update in record.updates), 0) + 1,
        changes=changes,
        requested_by=requested_by,
        requested_at=now,
        summary=summarise(record.request, changes),
        metrics_before=metrics,
    )
    kept = (*record.updates[-KEPT_COUNT + 1 :], update)
    accepted = dataclasses.replace(record, updates=kept, modified_at=now)
    return accepted if manner is not None else keeping.follow_period(_apply(accepted, now), now)


def apply_update_report(record: TrainingJobRecord, report: UpdateReport, now: float) -> tuple[TrainingJobRecord, bool]:
    """Take what machines of the job's attempt tell of a change; False where nothing may follow, since it is over.

    A repeat changes nothing.
    """
    update = record.open_update
    if update is None or update.revision != report.revision or record.status is not TrainingJobStatus.IN_PROGRESS:
        return record, _was_heard_before(record, report)
    if report.stage is UpdateStage.FAILED:
        moved = _settle(record, UpdateStatus.FAILED, now, failure_reason=report.reason)
    elif report.stage is UpdateStage.APPLIED:
        moved = _apply(record, now, heard_by=report.heard_by)
    elif report.stage is UpdateStage.MOVING:
        moved = move(record, now)
    else:
        moved = _begin_restart(record, update, now)
    return moved, True


def is_moving(record: TrainingJobRecord) -> bool:
    """Tell whether the job's machines are being given up for others."""
    update = record.open_update
    if update is None or update.status is not UpdateStatus.RESTARTING:
        return False
    return manner_of(record.request, update.changes) is Manner.MOVE


def move(record: TrainingJobRecord, now: float) -> TrainingJobRecord:
    """Have the job wait for other machines, for its next attempt. From this record on the one before is fenced."""
    update = record.open_update
    if update is None:
        return record
    changed = _put(_change(record, update), dataclasses.replace(update, status=UpdateStatus.RESTARTING), now)
    waiting = enter(changed, SecondaryStatus.PENDING, f"Waiting for the machines of revision {update.revision}", now)
    return dataclasses.replace(
        waiting,
        attempt=record.attempt + 1,
        move_count=record.move_count + 1,
        restart_revision=update.revision,
        start=0,
        started_at=None,
        ended_at=None,
        node_id=None,
        warm_pool=None,
    )


def trains_with(record: TrainingJobRecord, revision: int, now: float) -> TrainingJobRecord:
    """Hear that containers of a revision train, which puts in force what they were restarted for."""
    update = record.open_update
    if update is None or update.status is not UpdateStatus.RESTARTING or revision < update.revision:
        return record
    return _settle(record, UpdateStatus.APPLIED, now)


def give_up(record: TrainingJobRecord, reason: str, now: float) -> TrainingJobRecord:
    """Fail the change that is under way, where there is one."""
    if record.open_update is None:
        return record
    return _settle(record, UpdateStatus.FAILED, now, failure_reason=f"It was not made: {reason}")


def revisions_of(record: TrainingJobRecord) -> Revisions:
    """Which changes concern what. Those that the record does not keep any more count as from the beginning."""

    def last(field: str) -> int:
        made = [it.revision for it in record.updates if field in it.changes and it.status is not UpdateStatus.FAILED]
        return max((revision for revision in made if revision <= record.revision), default=0)

    return Revisions(record.revision, last("HyperParameters"), last("AlgorithmSource"), record.restart_revision)


def awaiting_metrics(record: TrainingJobRecord) -> list[JobUpdate]:
    """The changes that are in force and of whose effect nothing was told yet."""
    return [it for it in record.updates if it.status is UpdateStatus.APPLIED and it.metrics_after is None]


def measure(record: TrainingJobRecord, revision: int, metrics: Mapping[str, float], now: float) -> TrainingJobRecord:
    """Keep the first numbers after a change."""
    updates = tuple(
        dataclasses.replace(it, metrics_after=metrics) if it.revision == revision else it for it in record.updates
    )
    return dataclasses.replace(record, updates=updates, modified_at=now)


def news(before: TrainingJobRecord, after: TrainingJobRecord) -> list[EventRecord]:
    """What a move of the record is to its changes, as events of the job."""
    known = {update.revision: update for update in before.updates}
    found = [
        (kind, message) for update in after.updates for kind, message in _news_of(known.get(update.revision), update)
    ]
    return [EventRecord(after.arn, after.modified_at, kind, message, after.attempt) for kind, message in found]


def _news_of(before: JobUpdate | None, after: JobUpdate) -> list[tuple[str, str]]:
    what = f"Revision {after.revision}: {'; '.join(after.summary)}"
    found = []
    if before is None:
        measured = f" Before it: {_numbers(after.metrics_before)}." if after.metrics_before else ""
        found.append(("UpdateRequested", f"{what}. Asked for by {after.requested_by}.{measured}"))
    if before is None or before.status is not after.status:
        if after.status is UpdateStatus.RESTARTING:
            found.append(("UpdateRestarting", f"{what}. The job's containers are replaced for it"))
        if after.status is UpdateStatus.APPLIED:
            ranks = ", ".join(map(str, after.heard_by))
            found.append(("UpdateApplied", f"{what}. In force" + (f", heard by rank {ranks}" if ranks else "")))
        if after.status is UpdateStatus.FAILED:
            found.append(("UpdateFailed", f"{what}. {after.failure_reason}"))
    if after.metrics_after and (before is None or before.metrics_after is None):
        effect = [_effect(name, after.metrics_before.get(name), value) for name, value in after.metrics_after.items()]
        found.append(("UpdateMeasured", f"{what}. Asked for by {after.requested_by}. {'; '.join(effect)}"))
    return found


def _effect(name: str, before: float | None, after: float) -> str:
    return f"{name} was {after:g} next" if before is None else f"{name} was {before:g} before, {after:g} next"


def _numbers(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in metrics.items())


def _was_heard_before(record: TrainingJobRecord, report: UpdateReport) -> bool:
    """Tell whether this is the repeat of a report whose acknowledgement was lost."""
    settled = {UpdateStage.APPLIED: UpdateStatus.APPLIED, UpdateStage.FAILED: UpdateStatus.FAILED}
    return any(it.revision == report.revision and it.status is settled.get(report.stage) for it in record.updates)


def _begin_restart(record: TrainingJobRecord, update: JobUpdate, now: float) -> TrainingJobRecord:
    """Have the containers go. Where the machines go too, the change is in force once they have."""
    if update.status is UpdateStatus.RESTARTING:
        return record
    begun = _put(record, dataclasses.replace(update, status=UpdateStatus.RESTARTING), now)
    if manner_of(record.request, update.changes) is Manner.MOVE:
        return begun
    changed = dataclasses.replace(_change(begun, update), restart_revision=update.revision)
    return enter(changed, SecondaryStatus.RESTARTING, f"Restarting for revision {update.revision}", now)


def _apply(record: TrainingJobRecord, now: float, heard_by: tuple[int, ...] = ()) -> TrainingJobRecord:
    update = record.updates[-1]
    return _settle(_change(record, update), UpdateStatus.APPLIED, now, heard_by=heard_by)


def _change(record: TrainingJobRecord, update: JobUpdate) -> TrainingJobRecord:
    """Write a change into what is in force."""
    request = changed_request(record.request, update.changes)
    return dataclasses.replace(record, request=request, revision=update.revision)


def _settle(record: TrainingJobRecord, status: UpdateStatus, now: float, **facts: Any) -> TrainingJobRecord:
    return _put(record, dataclasses.replace(record.updates[-1], status=status, settled_at=now, **facts), now)


def _put(record: TrainingJobRecord, update: JobUpdate, now: float) -> TrainingJobRecord:
    return dataclasses.replace(record, updates=(*record.updates[:-1], update), modified_at=now)
