"""Asynchronous invocations in the database: accepted, claimed for a while, answered, told of, forgotten.

An `InvocationQueue`. A row is deleted when nothing remains to be done; that of an endpoint that goes, goes with it.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select, update

from raymaker.platform.database.engine import Database
from raymaker.platform.database.schema import async_invocations as table
from raymaker.platform.database.statements import insert_new
from raymaker.serving.async_queue import AsyncInvocation, Claim


class DatabaseQueue:
    """The queue of all endpoints of a platform. Threads and processes may share the database."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def put(self, invocation: AsyncInvocation) -> None:
        """Accept an invocation; the same one again changes nothing."""
        row = {
            **dataclasses.asdict(invocation),
            "headers": [list(header) for header in invocation.headers],
            "due_at": invocation.accepted_at,
            "attempt": 0,
            "lost_count": 0,
        }
        with self._database.transaction() as connection:
            insert_new(connection, table, [row])

    def claim(self, endpoint_name: str, count: int, lease_s: float) -> list[Claim]:
        """Claim what is due: new, given back, or held by somebody whose lease has run out."""
        now = self._now()
        due = (table.c.endpoint_name == endpoint_name) & (table.c.due_at <= now)
        statement = select(table).where(due).order_by(table.c.accepted_at, table.c.id).limit(count)
        with self._database.reading() as connection:  # most looks find nothing, and need no writer's lock
            if not connection.execute(statement).first():
                return []
        with self._database.transaction() as connection:
            rows = connection.execute(statement.with_for_update(skip_locked=True)).mappings().all()
            return [_take(connection, row, now + lease_s) for row in rows]

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a claim for longer; False where it is lost."""
        return self._change(claim, {"due_at": self._now() + lease_s})

    def settle(self, claim: Claim, notice: Mapping[str, Any]) -> bool:
        """Note that the invocation is answered; False where the claim is lost."""
        return self._change(claim, {"notice": dict(notice), "attempt": 1, "lost_count": 0})

    def release(self, claim: Claim, delay_s: float) -> bool:
        """Give a claim back for later; False where it is lost."""
        return self._change(claim, {"claim": None, "due_at": self._now() + delay_s})

    def finish(self, claim: Claim) -> bool:
        """Forget an invocation; False where the claim is lost."""
        with self._database.transaction() as connection:
            return connection.execute(delete(table).where(_held(claim))).rowcount == 1

    def _change(self, claim: Claim, values: Mapping[str, object]) -> bool:
        with self._database.transaction() as connection:
            return connection.execute(update(table).where(_held(claim)).values(values)).rowcount == 1


def has_invocations(connection: Connection, endpoint_name: str) -> bool:
    """Tell whether anything of an endpoint's is not answered, or not told of."""
    statement = select(table.c.id).where(table.c.endpoint_name == endpoint_name).limit(1)
    return connection.execute(statement).first() is not None


def delete_invocations(connection: Connection, endpoint_name: str) -> None:
    """Forget what an endpoint that goes has not answered."""
    connection.execute(delete(table).where(table.c.endpoint_name == endpoint_name))


def _take(connection: Connection, row: RowMapping, due_at: float) -> Claim:
    token = str(uuid.uuid4())
    attempt, lost_count = row["attempt"] + 1, row["lost_count"] + (row["claim"] is not None)
    changed = {"claim": token, "due_at": due_at, "attempt": attempt, "lost_count": lost_count}
    connection.execute(update(table).where(table.c.id == row["id"]).values(changed))
    facts = {field.name: row[field.name] for field in dataclasses.fields(AsyncInvocation)}
    facts["headers"] = tuple((name, value) for name, value in row["headers"])
    return Claim(AsyncInvocation(**facts), token, attempt, lost_count, row["notice"])


def _held(claim: Claim) -> Any:
    return (table.c.id == claim.invocation.id) & (table.c.claim == claim.token)
