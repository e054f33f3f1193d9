"""Named values kept in memory: what the ranks of one job push and pull, on one machine. Knows no wire.

Writers are strictly ordered, so each change has a version of its own; readers may wait for the next one.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from raymaker.actors.exchange.reduce import as_elements, combine, count_elements
from raymaker.actors.exchange.seam import Value

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


class TooLarge(ValueError):
    """A value, or all of them together, would take more room than there is."""


def check_name(name: str) -> None:
    """Raise ValueError for what cannot be the name of a value."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name {name[:80]!r} is no name of a value: up to 200 letters, digits and . _ - /, a letter or digit first"
        )


@dataclass
class _Entry:
    value: Value
    dtype: str | None = None
    """Of a value that was added to; None where only bytes were put."""


class LocalValues:
    """Values of a job on one machine (seam.Values). Refuses with ValueError; what is too much with TooLarge."""

    def __init__(
        self, *, value_bytes: int = 256 * 1024**2, total_bytes: int = 1024**3, value_count: int = 10_000
    ) -> None:
        self._value_bytes = value_bytes
        self._total_bytes = total_bytes
        self._value_count = value_count
        self._entries: dict[str, _Entry] = {}
        self._held_bytes = 0
        self._changed = threading.Condition()

    def put(self, name: str, content: bytes, content_type: str) -> int:
        """Replace a value; returns its new version."""
        check_name(name)
        with self._changed:
            return self._store(name, content, content_type, None)

    def add(self, name: str, content: bytes, dtype: str) -> int:
        """Add an array to a value element by element, or set it where there is none; returns its new version."""
        check_name(name)
        count_elements(len(content), dtype)
        with self._changed:
            entry = self._entries.get(name)
            if entry is None:
                return self._store(name, content, "application/octet-stream", dtype)
            _check_fits(name, entry, content, dtype)
            total = as_elements(entry.value.content, dtype).copy()
            combine(total, as_elements(content, dtype), "sum")
            return self._store(name, total.tobytes(), entry.value.content_type, dtype)

    def get(self, name: str, after_version: int = 0, wait_s: float = 0.0) -> Value | None:
        """Read a value newer than `after_version`, waiting up to `wait_s` for it; None where there is none."""
        check_name(name)
        with self._changed:
            self._changed.wait_for(lambda: self._version(name) > after_version, wait_s)
            return self._entries[name].value if self._version(name) > after_version else None

    def _version(self, name: str) -> int:
        entry = self._entries.get(name)
        return entry.value.version if entry else 0

    def _store(self, name: str, content: bytes, content_type: str, dtype: str | None) -> int:
        before = self._entries.get(name)
        held_bytes = self._held_bytes + len(content) - (len(before.value.content) if before else 0)
        if len(content) > self._value_bytes:
            raise TooLarge(f"value {name} would have {len(content)} bytes: at most {self._value_bytes} are kept")
        if held_bytes > self._total_bytes:
            raise TooLarge(f"with value {name} all values would take {held_bytes} bytes: there are {self._total_bytes}")
        if before is None and len(self._entries) >= self._value_count:
            raise TooLarge(
                f"value {name} would be one more than the {self._value_count} that are kept: use names again"
            )
        version = self._version(name) + 1
        self._entries[name] = _Entry(Value(version, content, content_type), dtype)
        self._held_bytes = held_bytes
        self._changed.notify_all()
        return version


def _check_fits(name: str, entry: _Entry, content: bytes, dtype: str) -> None:
    if entry.dtype not in {None, dtype}:
        raise ValueError(f"value {name} holds {entry.dtype}: {dtype} cannot be added to it")
    if len(entry.value.content) != len(content):
        held = len(entry.value.content)
        raise ValueError(f"value {name} has {held} bytes: {len(content)} bytes of {dtype} cannot be added to it")
