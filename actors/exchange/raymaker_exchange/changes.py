"""What a rank hears of changes to its job while it trains, and which of them are news to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

_ASK_S = 30.0
_PAUSE_S = 0.2


class Change(NamedTuple):
    """How the job is to go on. `revision` counts its changes; those that came one upon another are told as one.

    `hyperparameters` are all of them, as text, changed or not. `code` is the folder of the newest code, None where the
    container has that already. `changed` names what is new: "hyperparameters", "code".
    """

    revision: int
    hyperparameters: dict[str, str]
    code: str | None
    changed: tuple[str, ...]


class Source(Protocol):
    """Where changes are told."""

    def changes(self, since: int, wait_s: float) -> dict[str, Any] | None:
        """What has changed after a revision, waiting for it; None where nothing has."""


class Listening:
    """What one rank has heard of. Threads may share it: each change is told once."""

    def __init__(self, source: Source, revision: int, sleep: Callable[[float], None] = time.sleep) -> None:
        self._source = source
        self._sleep = sleep
        self._known = revision
        self._lock = threading.Lock()

    def hear(self, timeout_s: float) -> Change | None:
        """Return what has changed since the last time, waiting up to `timeout_s` for it; None where nothing has."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            asked_at = time.monotonic()
            told = self._source.changes(self._known, min(left_s, _ASK_S))
            change = None if told is None else self._take(told)
            if change is not None or time.monotonic() >= deadline:
                return change
            self._sleep(max(0.0, min(_PAUSE_S - (time.monotonic() - asked_at), deadline - time.monotonic())))

    def _take(self, told: dict[str, Any]) -> Change | None:
        with self._lock:
            known, self._known = self._known, max(self._known, int(told["revision"]))
        if self._known == known:  # another thread was told meanwhile
            return None
        changed = tuple(part for part in ("hyperparameters", "code") if int(told[f"{part}_revision"]) > known)
        return Change(int(told["revision"]), dict(told["hyperparameters"]), told["code"], changed)
