"""Notices to webhooks that are still to be sent. A row is deleted once it was, or is given up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from raymaker.platform.database.engine import Database
from raymaker.platform.database.schema import notices as table
from raymaker.platform.records import TrainingJobRecord


@dataclass(frozen=True)
class Notice:
    """What `topic`, the URL of a webhook, is to hear of a job. `sent_count` times it did not say that it has."""

    id: int
    job_name: str
    attempt: int
    topic: str
    content: Mapping[str, Any]
    sent_count: int


def add_notice(
    connection: Connection, job: TrainingJobRecord, topic: str, content: Mapping[str, Any], now: float
) -> None:
    """Have a webhook told, once the transaction is through."""
    row = {"job_name": job.name, "attempt": job.attempt, "topic": topic, "content": dict(content)}
    connection.execute(insert(table).values({**row, "due_at": now, "sent_count": 0}))


def due_notices(database: Database, now: float, count: int) -> list[Notice]:
    """Read those whose time has come, the oldest first."""
    columns = (table.c[name] for name in ("id", "job_name", "attempt", "topic", "content", "sent_count"))
    statement = select(*columns).where(table.c.due_at <= now).order_by(table.c.due_at, table.c.id).limit(count)
    with database.reading() as connection:
        return [Notice(**row) for row in connection.execute(statement).mappings()]


def next_due(database: Database) -> float | None:
    """When the next one is due; None where none is kept."""
    with database.reading() as connection:
        found: float | None = connection.execute(select(func.min(table.c.due_at))).scalar_one()
    return found


def put_off(database: Database, notice: Notice, until: float) -> None:
    """Have a notice that did not arrive sent again later."""
    changed = {"due_at": until, "sent_count": notice.sent_count + 1}
    with database.transaction() as connection:
        connection.execute(update(table).where(table.c.id == notice.id).values(changed))


def forget_notice(database: Database, notice: Notice) -> None:
    """Send it no more."""
    with database.transaction() as connection:
        connection.execute(delete(table).where(table.c.id == notice.id))
