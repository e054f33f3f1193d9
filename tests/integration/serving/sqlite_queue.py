"""The queue of asynchronous invocations in a file, which any process of this machine can share."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymaker.platform.database.engine import Database
from raymaker.platform.database.invocations import DatabaseQueue


@dataclass(frozen=True)
class SqliteQueue:
    """An InvocationQueue that travels: each process opens the database at `path` at its first call."""

    path: Path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(opened(self.path), name)


@functools.cache
def opened(path: Path) -> DatabaseQueue:
    database = Database(f"sqlite:///{path}")
    database.migrate()
    return DatabaseQueue(database)
