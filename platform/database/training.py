"""Training jobs in the database: plain queries within a transaction, and the moves of reconciler and supervisors.

What a legal move is stands in `transitions.py`; here it is loaded, made and written as one, with its event.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, select, update

from raymaker.actors.reports import JobReport, ReportRefused
from raymaker.platform import transitions
from raymaker.platform.changing import job_updates
from raymaker.platform.database.engine import Database
from raymaker.platform.database.evaluations import make_final_evaluation
from raymaker.platform.database.events import delete_events, insert_event
from raymaker.platform.database.schema import training_jobs
from raymaker.platform.database.statements import Listing, clean_text, fetch_changed, fetch_page, insert_new
from raymaker.platform.database.tags import delete_all_tags
from raymaker.platform.database.update_rows import update_from_json, update_to_json
from raymaker.platform.errors import ConflictException
from raymaker.platform.pools import keeping
from raymaker.platform.pools.warm_pool import WarmPool, WarmPoolStatus
from raymaker.platform.records import (
    EventRecord,
    SecondaryStatus,
    StatusTransition,
    TrainingJobRecord,
    TrainingJobStatus,
)

Move = Callable[[TrainingJobRecord], TrainingJobRecord]

# Made once: the reconciler asks for them at every step.
_IS_UNFINISHED = training_jobs.c.status.in_([status for status in TrainingJobStatus if not status.ended])
_HAS_LIVE_POOL = training_jobs.c.warm_pool_status.in_([status for status in WarmPoolStatus if status.is_live])


class JobMissing(Exception):
    """There is no training job of that name (any more)."""


def insert_training_job(connection: Connection, record: TrainingJobRecord) -> bool:
    """Write a new job. False where the name is taken."""
    return insert_new(connection, training_jobs, [_to_row(record)]) == 1


def find_training_job(connection: Connection, name: str, *, lock: bool = False) -> TrainingJobRecord | None:
    """Read one job; with `lock`, nobody else changes it before the transaction ends."""
    statement = select(training_jobs).where(training_jobs.c.name == name)
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().one_or_none()
    return _from_row(row) if row is not None else None


def is_current(database: Database, name: str, attempt: int) -> bool:
    """Whether a job has not ended, and this attempt is the one whose reports count."""
    with database.reading() as connection:
        record = find_training_job(connection, name)
    return record is not None and not record.status.ended and record.attempt == attempt


def find_training_jobs(connection: Connection, names: Collection[str]) -> dict[str, TrainingJobRecord]:
    """Read several jobs, by name; those that are not there are left out."""
    rows = connection.execute(select(training_jobs).where(training_jobs.c.name.in_(names))).mappings()
    return {row["name"]: _from_row(row) for row in rows}


def find_training_job_by_model(connection: Connection, model_uri: str) -> TrainingJobRecord | None:
    """Read the job that stored its model there, the latest where several did."""
    statement = select(training_jobs).where(training_jobs.c.model_uri == model_uri)
    row = connection.execute(statement.order_by(training_jobs.c.created_at.desc()).limit(1)).mappings().one_or_none()
    return _from_row(row) if row is not None else None


def list_training_jobs(connection: Connection, listing: Listing) -> tuple[list[TrainingJobRecord], str | None]:
    """Read one page of jobs, and the next page's token. Raises ValidationException for a bad token."""
    page = fetch_page(connection, training_jobs, listing)
    return [_from_row(row) for row in page.rows], page.next_token


def save_training_job(connection: Connection, record: TrainingJobRecord) -> TrainingJobRecord:
    """Write a changed job over the version it was read as, and return it as it is now.

    Raises ConflictException where somebody else wrote meanwhile.
    """
    saved = dataclasses.replace(record, version=record.version + 1)
    guard = (training_jobs.c.name == record.name) & (training_jobs.c.version == record.version)
    if connection.execute(update(training_jobs).where(guard).values(_to_row(saved))).rowcount != 1:
        raise ConflictException(f"Training job {record.name} was changed by somebody else meanwhile. Try again.")
    return saved


def delete_training_job(connection: Connection, record: TrainingJobRecord) -> None:
    """Forget a job with its metrics, events and tags."""
    connection.execute(delete(training_jobs).where(training_jobs.c.name == record.name))
    delete_events(connection, record.arn)
    delete_all_tags(connection, record.arn)


def unfinished_training_jobs(
    database: Database, known: Mapping[str, TrainingJobRecord] = MappingProxyType({})
) -> list[TrainingJobRecord]:
    """Read all jobs that have not ended, oldest first; of those `known` by name only what was written since."""
    with database.reading() as connection:
        return fetch_changed(connection, training_jobs, _IS_UNFINISHED, known, _from_row)


def live_warm_pools(
    database: Database, known: Mapping[str, TrainingJobRecord] = MappingProxyType({})
) -> list[TrainingJobRecord]:
    """Read all jobs whose warm pool is in use or kept; of those `known` by name only what was written since."""
    with database.reading() as connection:
        return fetch_changed(connection, training_jobs, _HAS_LIVE_POOL, known, _from_row)


def count_unfinished(connection: Connection) -> dict[str, int]:
    """How many jobs have not ended, by secondary status."""
    columns = training_jobs.c
    statement = select(columns.secondary, func.count()).where(_IS_UNFINISHED).group_by(columns.secondary)
    return dict(connection.execute(statement).all())


def names_of_begun(connection: Connection) -> list[str]:
    """The names of the jobs whose training has begun and that have not ended, oldest first."""
    columns = training_jobs.c
    statement = select(columns.name).where(_IS_UNFINISHED, columns.started_at.is_not(None))
    return list(connection.execute(statement.order_by(columns.created_at, columns.name)).scalars())


def move_training_job(connection: Connection, name: str, move: Move) -> TrainingJobRecord:
    """Load a job, move it, write it where that changed it, and note what it does now as an event. Raises JobMissing."""
    record = find_training_job(connection, name, lock=True)
    if record is None:
        raise JobMissing(f"there is no training job {name}")
    moved = move(record)
    if moved == record:
        return record
    if (moved.secondary, moved.attempt, moved.start) != (record.secondary, record.attempt, record.start):
        message = f"{moved.message}: {moved.failure_reason}" if moved.failure_reason else moved.message
        insert_event(connection, EventRecord(moved.arn, moved.modified_at, moved.secondary, message, moved.attempt))
    if moved.status.ended and not record.status.ended:
        make_final_evaluation(connection, moved, moved.modified_at)
    for event in (*job_updates.news(record, moved), *keeping.news(record, moved)):
        insert_event(connection, event)
    return save_training_job(connection, moved)


def apply_report(database: Database, report: JobReport, now: float) -> None:
    """Take one report of an attempt; durable when it returns.

    Raises ReportRefused where the attempt must stop: a later one is the job's, or the job has ended or was deleted.
    """
    try:
        with database.transaction() as connection:
            move_training_job(connection, report.job_name, lambda job: transitions.apply_report(job, report, now))
    except JobMissing as error:
        raise ReportRefused(f"{error}: it was deleted") from error


def begin_start(database: Database, name: str, attempt: int, message: str, now: float) -> int:
    """Begin the next start of an attempt's instances, and return its number; durable when it returns.

    Raises ReportRefused where the attempt must stop: a later one is the job's, or the job has ended or was deleted.
    """
    try:
        with database.transaction() as connection:
            return move_training_job(
                connection, name, lambda job: transitions.begin_start(job, attempt, message, now)
            ).start
    except JobMissing as error:
        raise ReportRefused(f"{error}: it was deleted") from error


def mark_pending(connection: Connection, name: str, reason: str, now: float) -> None:
    """Say why a job waits; writes only where the reason is new. Raises IllegalMove, JobMissing."""
    move_training_job(connection, name, lambda job: transitions.mark_pending(job, reason, now))


def start_attempt(database: Database, name: str, now: float, node_id: str | None = None) -> TrainingJobRecord:
    """Begin a waiting job's first attempt, and return the job with it. Raises IllegalMove, JobMissing."""
    with database.transaction() as connection:
        return move_training_job(connection, name, lambda job: transitions.start_attempt(job, now, node_id))


def start_on_pool(database: Database, name: str, kept: str, now: float) -> TrainingJobRecord:
    """Begin a waiting job's attempt on what is kept of the job `kept`, and return the job with it.

    Raises IllegalMove, JobMissing: then nothing has changed.
    """
    with database.transaction() as connection:
        pool = move_training_job(connection, kept, lambda job: keeping.reuse(job, name, now)).warm_pool
        pool_id = pool.pool_id if pool is not None else None
        return move_training_job(connection, name, lambda job: transitions.start_attempt(job, now, pool_id=pool_id))


def change_training_job(database: Database, name: str, move: Move) -> TrainingJobRecord:
    """Move a job in a transaction of its own. Raises JobMissing, and what the move raises."""
    with database.transaction() as connection:
        return move_training_job(connection, name, move)


def lose_attempt(database: Database, name: str, attempt: int, reason: str, now: float) -> TrainingJobRecord:
    """Give up an attempt whose machine is gone, and return the job as it goes on. Raises JobMissing."""
    with database.transaction() as connection:
        return move_training_job(connection, name, lambda job: transitions.lose_attempt(job, attempt, reason, now))


def _to_row(record: TrainingJobRecord) -> dict[str, Any]:
    row = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    row["transitions"] = [[stay.status, stay.started_at, stay.ended_at, stay.message] for stay in record.transitions]
    row["updates"] = [update_to_json(update) for update in record.updates]
    row["warm_pool_status"] = record.warm_pool.status if record.warm_pool is not None else None
    row["warm_pool"] = dataclasses.asdict(record.warm_pool) if record.warm_pool is not None else None
    row["failure_reason"] = clean_text(record.failure_reason) if record.failure_reason is not None else None
    return row


def _from_row(row: RowMapping) -> TrainingJobRecord:
    stays = tuple(StatusTransition(SecondaryStatus(status), *rest) for status, *rest in row["transitions"])
    states = {"status": TrainingJobStatus(row["status"]), "secondary": SecondaryStatus(row["secondary"])}
    updates = tuple(map(update_from_json, row["updates"]))
    told = {name: value for name, value in row.items() if name != "warm_pool_status"}
    pool = {"warm_pool": _read_pool(row["warm_pool"])}
    return TrainingJobRecord(**{**told, **states, **pool, "transitions": stays, "updates": updates})


def _read_pool(told: Mapping[str, Any] | None) -> WarmPool | None:
    return WarmPool(**{**told, "status": WarmPoolStatus(told["status"])}) if told is not None else None
