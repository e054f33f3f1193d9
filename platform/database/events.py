"""Events: what happened to a job or an endpoint, in the order it happened."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection, RowMapping, delete, insert, select

from raymaker.platform.database.engine import Database
from raymaker.platform.database.schema import endpoints, events, training_jobs
from raymaker.platform.database.statements import clean_text, fetch_rows_after
from raymaker.platform.records import EventRecord

REPLICA_FAILED = "ReplicaFailed"
"""The kind of an event that tells why a scoring container did not start or died."""


def insert_event(connection: Connection, event: EventRecord) -> None:
    """Note one event."""
    row = {**dataclasses.asdict(event), "message": clean_text(event.message)}
    connection.execute(insert(events).values(row))


def list_events(
    connection: Connection, subject: str, limit_count: int, token: str | None
) -> tuple[list[EventRecord], str | None]:
    """Read one page of a resource's events, oldest first. Raises ValidationException for a bad token."""
    statement = select(events).where(events.c.subject == subject)
    page = fetch_rows_after(connection, statement, events, limit_count, token)
    return [_from_row(row) for row in page.rows], page.next_token


def delete_events(connection: Connection, subject: str) -> None:
    """Forget the events of a resource that goes."""
    connection.execute(delete(events).where(events.c.subject == subject))


def last_replica_failure(database: Database, arn: str, generation: int) -> str | None:
    """Return what a replica of this generation said of its last failure, None where none said anything."""
    failures = (events.c.subject == arn) & (events.c.kind == REPLICA_FAILED) & (events.c.generation == generation)
    statement = select(events.c.message).where(failures).order_by(events.c.id.desc()).limit(1)
    with database.reading() as connection:
        return connection.execute(statement).scalar_one_or_none()


def record_endpoint_event(
    database: Database, endpoint_name: str, generation: int, message: str, *, failed: bool, now: float
) -> None:
    """Note what a replica of an endpoint went through. Nothing is noted for an endpoint that is gone."""
    kind = REPLICA_FAILED if failed else "Replica"
    with database.transaction() as connection:
        arn = connection.execute(select(endpoints.c.arn).where(endpoints.c.name == endpoint_name)).scalar_one_or_none()
        if arn is not None:
            insert_event(connection, EventRecord(arn, now, kind, message, generation))


def record_job_event(database: Database, job_name: str, attempt: int, kind: str, message: str, *, now: float) -> None:
    """Note what happened to a training job that is no step of it. Nothing is noted for a job that is gone."""
    with database.transaction() as connection:
        named = select(training_jobs.c.arn).where(training_jobs.c.name == job_name)
        arn = connection.execute(named).scalar_one_or_none()
        if arn is not None:
            insert_event(connection, EventRecord(arn, now, kind, message, attempt))


def _from_row(row: RowMapping) -> EventRecord:
    return EventRecord(row["subject"], row["time"], row["kind"], row["message"], row["generation"])
