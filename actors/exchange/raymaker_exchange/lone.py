"""The exchange of a script that runs outside raymaker: one rank, and values that only it can see."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .buffers import add_arrays
from .line import Value


class LoneRank:
    """The only rank of its job: what all ranks have together is what it has."""

    def barrier(self) -> None:
        """Everyone is here."""

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """The sum of one array is that array, and so are the others."""

    def broadcast(self, data: memoryview, dtype: str, root: int) -> None:
        """Everyone has it."""

    def all_gather(self, data: memoryview, dtype: str, into: memoryview) -> None:  # noqa: ARG002 - as others have it
        """There is one array to collect."""
        into[:] = data

    def allocate(self, byte_count: int) -> memoryview:
        """Memory of this process."""
        return memoryview(bytearray(byte_count))

    def abandon(self, message: str, rank: int) -> None:
        """There is nobody to tell."""

    def close(self) -> None:
        """There is nothing to let go of."""


class LoneValues:
    """Named values where there is no hub. Threads may share it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._values: dict[str, Value] = {}

    def put(self, room: str, name: str, content: memoryview) -> int:
        """Replace a value; returns its version."""
        del room  # one for all: names are the job's
        return self._change(name, lambda _: bytes(content))

    def add(self, name: str, content: memoryview, dtype: str) -> int:
        """Add an array to a value; returns its version. Raises ValueError for another length."""
        return self._change(
            name, lambda old: bytes(content) if old is None else add_arrays(old.content, content, dtype)
        )

    def get(self, room: str, name: str, after: int, wait_s: float) -> Value | None:
        """Read a value newer than `after`; None where there is none."""
        del room
        with self._changed:
            self._changed.wait_for(lambda: name in self._values and self._values[name].version > after, wait_s)
            value = self._values.get(name)
        return value if value is not None and value.version > after else None

    def tell(self, document: dict[str, Any]) -> None:
        """Nobody keeps numbers here."""

    def changes(self, since: int, wait_s: float) -> dict[str, Any] | None:
        """Nobody changes a job that is none."""
        del since, wait_s
        return None

    def leave(self) -> None:
        """Nobody else is there."""

    def _change(self, name: str, change: Callable[[Value | None], bytes]) -> int:
        with self._changed:
            old = self._values.get(name)
            version = old.version + 1 if old else 1
            self._values[name] = Value(version, change(old))
            self._changed.notify_all()
        return version
