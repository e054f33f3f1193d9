"""How a job comes to a warm pool, and how that ends: pure moves of the job's record.

Which job may take a pool over is `matching.py`'s matter. The reconciler sees to it that what the records say is so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raymaker.actors.reports import Outcome
from raymaker.platform.phases import IllegalMove
from raymaker.platform.pools.warm_pool import WarmPool, WarmPoolStatus
from raymaker.platform.records import EventRecord, TrainingJobRecord

PERIOD = "KeepAlivePeriodInSeconds"
GIVEN_BACK = "KeepAlivePeriodInSeconds was taken back"
EXPIRED = "KeepAlivePeriodInSeconds is over"
LOST = "Its machine is gone"
UNWELL = "The job's machines failed"


def keep_alive_s(request: Mapping[str, Any]) -> int:
    """How long the machines of a job are to be kept after its end."""
    return int(request.get("ResourceConfig", {}).get(PERIOD) or 0)


def kept_until(record: TrainingJobRecord) -> float | None:
    """Until when what a job left is kept (epoch seconds), None where nothing is, or the job has not ended."""
    pool = record.warm_pool
    if pool is None or pool.available_at is None or pool.status is not WarmPoolStatus.AVAILABLE:
        return None
    return pool.available_at + keep_alive_s(record.request)


def begin(record: TrainingJobRecord, pool_id: str | None = None) -> TrainingJobRecord:
    """Give a job that gets its machines its pool: the one that it takes over, else its own where it asks for one."""
    if pool_id is None:
        if record.warm_pool is not None or not keep_alive_s(record.request):
            return record
        pool_id = f"{record.name}-{record.created_at * 1e6:.0f}-{record.attempt}"  # names may be used again
    return dataclasses.replace(record, warm_pool=WarmPool(pool_id))


def after_end(record: TrainingJobRecord, outcome: Outcome, now: float) -> TrainingJobRecord:
    """Keep the machines of a job that has ended, where it asked for that and they are well."""
    pool = record.warm_pool
    if pool is None or pool.status is not WarmPoolStatus.IN_USE:
        return record
    is_well = outcome is not Outcome.FAILED or not (record.failure_reason or "").startswith("InternalServerError")
    if not is_well or not keep_alive_s(record.request):
        return _terminate(record, pool, GIVEN_BACK if is_well else UNWELL, now)
    return dataclasses.replace(
        record, warm_pool=dataclasses.replace(pool, status=WarmPoolStatus.AVAILABLE, available_at=now)
    )


def reuse(record: TrainingJobRecord, by: str, now: float) -> TrainingJobRecord:
    """Hand what is kept of a job to another. Raises IllegalMove where nothing is."""
    pool = record.warm_pool
    if pool is None or pool.status is not WarmPoolStatus.AVAILABLE:
        raise IllegalMove(f"nothing is kept of training job {record.name} that {by} could have")
    reused = dataclasses.replace(pool, status=WarmPoolStatus.REUSED, reused_by=by, ended_at=now)
    return dataclasses.replace(record, warm_pool=reused, modified_at=now)


def expire(record: TrainingJobRecord, now: float) -> TrainingJobRecord:
    """End a pool whose time is over, as of then, however late that is seen."""
    pool, until = record.warm_pool, kept_until(record)
    return record if pool is None or until is None or now < until else _terminate(record, pool, EXPIRED, until)


def follow_period(record: TrainingJobRecord, now: float) -> TrainingJobRecord:
    """End a pool whose time is over since it was made shorter."""
    pool, until = record.warm_pool, kept_until(record)
    return record if pool is None or until is None or now < until else _terminate(record, pool, GIVEN_BACK, now)


def lose(record: TrainingJobRecord, now: float) -> TrainingJobRecord:
    """End a live pool whose machine is gone."""
    pool, until = record.warm_pool, kept_until(record)
    if pool is None or not pool.status.is_live:
        return record
    return _terminate(record, pool, LOST, now if until is None else min(now, until))


def changes_period_only(record: TrainingJobRecord, changes: Mapping[str, Any]) -> bool:
    """Tell whether a change is about how long what is kept is kept: the one that a job takes after its end."""
    is_alone = set(changes) == {"ResourceConfig"} and set(changes["ResourceConfig"]) == {PERIOD}
    return is_alone and kept_until(record) is not None


def news(before: TrainingJobRecord, after: TrainingJobRecord) -> list[EventRecord]:
    """What a move of the record is to its pool, as events of the job."""
    pool, earlier = after.warm_pool, before.warm_pool
    if pool is None or (earlier is not None and earlier.status is pool.status):
        return []
    message = {
        WarmPoolStatus.IN_USE: f"Its machines are of warm pool {pool.pool_id}",
        WarmPoolStatus.AVAILABLE: f"Kept for {keep_alive_s(after.request)} s for a job that matches",
        WarmPoolStatus.REUSED: f"Training job {pool.reused_by} has what was kept",
        WarmPoolStatus.TERMINATED: f"{pool.reason}: nothing is kept",
    }[pool.status]
    return [EventRecord(after.arn, after.modified_at, f"WarmPool{pool.status}", message, after.attempt)]


def _terminate(record: TrainingJobRecord, pool: WarmPool, reason: str, ended_at: float) -> TrainingJobRecord:
    ended = dataclasses.replace(pool, status=WarmPoolStatus.TERMINATED, ended_at=ended_at, reason=reason)
    return dataclasses.replace(record, warm_pool=ended, modified_at=max(record.modified_at, ended_at))
