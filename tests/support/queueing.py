"""Jobs in line for tests of turns and rooms: whose each is, what it needs and for how long."""

from __future__ import annotations

from sqlalchemy import Connection

from raymaker.actors.spec import Resources
from raymaker.platform.room import Queued

HOUR_S = 3600.0


def queued(
    name: str,
    needed: Resources = Resources(1),  # noqa: B008 - frozen
    account: str = "a",
    created_at: float = 0.0,
    limit_s: float = HOUR_S,
) -> Queued:
    """A job that nobody can start or tell anything."""

    def start(_now: float) -> None:
        raise AssertionError(f"nobody was to start {name}")

    def tell(_connection: Connection, _reason: str, _now: float) -> None:
        raise AssertionError(f"nobody was to tell {name}")

    return Queued(account, created_at, name, needed, 1, "an instance", limit_s, None, start, tell)
