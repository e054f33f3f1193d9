"""How much of a channel has come, told while several threads bring it."""

from __future__ import annotations

import threading
from collections.abc import Callable

Listener = Callable[[int, int], None]
"""Hears the bytes that have come and those in all."""


class Progress:
    """Bytes that several threads bring."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener or (lambda _done, _total: None)
        self._total_bytes = 0
        self._done_bytes = 0
        self._lock = threading.Lock()

    def begin(self, total_bytes: int) -> None:
        """Say how much will come."""
        self._total_bytes = total_bytes
        self._listener(0, total_bytes)

    def add(self, count: int) -> None:
        """Say that more has come."""
        with self._lock:
            self._done_bytes += count
            self._listener(self._done_bytes, self._total_bytes)

    def of(self, size_bytes: int) -> PartProgress:
        """Part of it: one object, of which some bytes may come twice or never."""
        return PartProgress(self, size_bytes)


class PartProgress:
    """Bytes of one object, counted up to its size. Threads may share it."""

    def __init__(self, whole: Progress, size_bytes: int) -> None:
        self._whole = whole
        self._size_bytes = size_bytes
        self._done_bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Say that more of it has come."""
        with self._lock:
            self._reach(self._done_bytes + count)

    def reach(self, done_bytes: int) -> None:
        """Say how much of it is here by now."""
        with self._lock:
            self._reach(done_bytes)

    def finish(self) -> None:
        """Say that all of it is here."""
        self.reach(self._size_bytes)

    def _reach(self, done_bytes: int) -> None:
        new_bytes = min(done_bytes, self._size_bytes) - self._done_bytes
        if new_bytes > 0:
            self._done_bytes += new_bytes
            self._whole.add(new_bytes)
