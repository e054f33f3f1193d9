"""Transform jobs in the database: plain queries within a transaction, and the moves of reconciler and machines.

What a legal move is stands in `transform_jobs.py`; here it is loaded, made and written as one, with its events. Also
kept is which of a job's objects are through, so that an attempt goes on where the one before ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from raymaker.actors.reports import Outcome, ReportRefused
from raymaker.actors.spec import SourceSpec
from raymaker.platform.database.engine import Database
from raymaker.platform.database.events import insert_event
from raymaker.platform.database.schema import transform_jobs, transform_objects
from raymaker.platform.database.statements import Listing, clean_text, fetch_changed, fetch_page, insert_new
from raymaker.platform.errors import ConflictException
from raymaker.platform.records import EventRecord
from raymaker.platform.transforming import transform_jobs as jobs
from raymaker.platform.transforming.transform_jobs import (
    MachineState,
    TransformJobRecord,
    TransformJobStatus,
    TransformModel,
)
from raymaker.serving.transform.reports import Finished, Ledger, Phase, Progress, TransformReport

Move = Callable[[TransformJobRecord], TransformJobRecord]

_IS_UNFINISHED = transform_jobs.c.status.in_([status for status in TransformJobStatus if not status.ended])

NOTED_FAILURES = 100
"""Objects of one job whose failures become events; the others are counted."""


class JobMissing(Exception):
    """There is no transform job of that name."""


def insert_transform_job(connection: Connection, record: TransformJobRecord) -> bool:
    """Write a new job. False where the name is taken."""
    return insert_new(connection, transform_jobs, [_to_row(record)]) == 1


def find_transform_job(connection: Connection, name: str, *, lock: bool = False) -> TransformJobRecord | None:
    """Read one job; with `lock`, nobody else changes it before the transaction ends."""
    statement = select(transform_jobs).where(transform_jobs.c.name == name)
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().one_or_none()
    return _from_row(row) if row is not None else None


def list_transform_jobs(connection: Connection, listing: Listing) -> tuple[list[TransformJobRecord], str | None]:
    """Read one page of jobs, and the next page's token. Raises ValidationException for a bad token."""
    page = fetch_page(connection, transform_jobs, listing)
    return [_from_row(row) for row in page.rows], page.next_token


def unfinished_transform_jobs(
    database: Database, known: Mapping[str, TransformJobRecord] = MappingProxyType({})
) -> list[TransformJobRecord]:
    """Read all jobs that have not ended, oldest first; of those `known` by name only what was written since."""
    with database.reading() as connection:
        return fetch_changed(connection, transform_jobs, _IS_UNFINISHED, known, _from_row)


def move_transform_job(connection: Connection, name: str, move: Move) -> TransformJobRecord:
    """Load a job, move it, write it where that changed it, and note what is news as events.

    Raises JobMissing, and ConflictException where somebody else wrote meanwhile.
    """
    record = find_transform_job(connection, name, lock=True)
    if record is None:
        raise JobMissing(f"there is no transform job {name}")
    moved = move(record)
    if moved == record:
        return record
    for kind, message in jobs.news(record, moved):
        insert_event(connection, EventRecord(moved.arn, moved.modified_at, kind, message, moved.attempt))
    return _save(connection, moved)


def apply_report(database: Database, report: TransformReport, now: float) -> TransformJobRecord:
    """Take one report of a machine; durable when it returns. Raises ReportRefused where the machine must stop."""
    try:
        with database.transaction() as connection:
            moved = move_transform_job(connection, report.job_name, lambda job: jobs.apply_report(job, report, now))
            _keep_finished(connection, moved, report.finished, now)
            return moved
    except JobMissing as error:
        raise ReportRefused(str(error)) from error


def begin(database: Database, name: str, attempt: int) -> Ledger:
    """Tell a machine what is through already. Raises ReportRefused where its attempt is not the job's."""
    columns = [transform_objects.c[field.name] for field in dataclasses.fields(Finished)]
    with database.reading() as connection:
        record = find_transform_job(connection, name)
        if record is None:
            raise ReportRefused(f"there is no transform job {name}")
        jobs.check_attempt(record, attempt)
        rows = connection.execute(select(*columns).where(transform_objects.c.job_name == name)).mappings()
        return Ledger({row["name"]: Finished(**row) for row in rows}, record.started_at)


def mark_pending(connection: Connection, name: str, reason: str, now: float) -> None:
    """Say why a job waits; writes only where the reason is new. Raises IllegalMove, JobMissing."""
    move_transform_job(connection, name, lambda job: jobs.mark_pending(job, reason, now))


def start_attempt(database: Database, name: str, now: float) -> TransformJobRecord:
    """Begin a waiting job's first attempt, and return the job with it. Raises IllegalMove, JobMissing."""
    with database.transaction() as connection:
        return move_transform_job(connection, name, lambda job: jobs.start_attempt(job, now))


def note(database: Database, name: str, attempt: int, kind: str, message: str, *, now: float) -> None:
    """Note what happened to a job that is no step of it."""
    with database.transaction() as connection:
        record = find_transform_job(connection, name)
        if record is not None:
            insert_event(connection, EventRecord(record.arn, now, kind, message, attempt))


def _keep_finished(
    connection: Connection, record: TransformJobRecord, finished: Sequence[Finished], now: float
) -> None:
    """Keep which objects are through, and note why some failed; what is kept already is passed over."""
    failed = [item for item in finished if item.failure is not None][:NOTED_FAILURES]
    fresh = _not_kept(connection, record.name, failed)
    if finished:
        insert_new(connection, transform_objects, [_object_row(record.name, item) for item in finished])
    room = max(0, NOTED_FAILURES + len(fresh) - record.progress.failed_count)
    for item in fresh[:room]:
        message = f"{item.name}: {item.failure}"
        insert_event(connection, EventRecord(record.arn, now, "ObjectFailed", message, record.attempt))


def _object_row(job_name: str, item: Finished) -> dict[str, Any]:
    cleaned = {"name": clean_text(item.name), "failure": _clean(item.failure)}
    return {"job_name": job_name, **dataclasses.asdict(item), **cleaned}


def _not_kept(connection: Connection, job_name: str, items: Sequence[Finished]) -> list[Finished]:
    """Leave out those that are kept."""
    if not items:
        return []
    names = [clean_text(item.name) for item in items]
    kept = (transform_objects.c.job_name == job_name) & transform_objects.c.name.in_(names)
    known = set(connection.execute(select(transform_objects.c.name).where(kept)).scalars())
    return [item for item in items if clean_text(item.name) not in known]


def _save(connection: Connection, record: TransformJobRecord) -> TransformJobRecord:
    saved = dataclasses.replace(record, version=record.version + 1)
    guard = (transform_jobs.c.name == record.name) & (transform_jobs.c.version == record.version)
    if connection.execute(update(transform_jobs).where(guard).values(_to_row(saved))).rowcount != 1:
        raise ConflictException(f"Transform job {record.name} was changed by somebody else meanwhile. Try again.")
    return saved


def _to_row(record: TransformJobRecord) -> dict[str, Any]:
    row = dataclasses.asdict(record)
    row["message"] = clean_text(record.message)
    row["failure_reason"] = _clean(record.failure_reason)
    row["machines"] = [_machine_row(machine) for machine in record.machines]
    return row


def _machine_row(machine: MachineState) -> dict[str, Any]:
    return {
        **dataclasses.asdict(machine),
        "outcome": machine.outcome.value if machine.outcome else None,
        "failure_reason": _clean(machine.failure_reason),
        "failures": [clean_text(failure) for failure in machine.failures],
    }


def _from_row(row: RowMapping) -> TransformJobRecord:
    model = row["model"]
    source = SourceSpec(**model["source"]) if model["source"] is not None else None
    return TransformJobRecord(
        **{
            **row,
            "status": TransformJobStatus(row["status"]),
            "model": TransformModel(**{**model, "source": source}),
            "machines": tuple(_machine(machine) for machine in row["machines"]),
        }
    )


def _machine(row: dict[str, Any]) -> MachineState:
    return MachineState(
        Phase(row["phase"]),
        Progress(**row["progress"]),
        Outcome(row["outcome"]) if row["outcome"] else None,
        row["failure_reason"],
        tuple(row["failures"]),
    )


def _clean(text: str | None) -> str | None:
    return clean_text(text) if text is not None else None
