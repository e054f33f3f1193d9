"""Waiting for something that the platform does: how often to look, how long to bear with a platform that is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from raymaker.platform.client.errors import PlatformUnreachable, WaitTimeout

T = TypeVar("T")
PATIENCE_S = 60.0
"""How long a wait goes on while the platform does not answer: long enough for it to be started again."""
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True)
class Clock:
    """The time as waiting sees it; tests bring their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def pause_s(elapsed_s: float) -> float:
    """How long to leave the platform alone after waiting `elapsed_s`: often at first, since a small job is quick."""
    return min(max(elapsed_s / 10, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)


def look_until(
    look: Callable[[], T],
    ended: Callable[[T], bool],
    *,
    what: str,
    timeout_s: float | None = None,
    clock: Clock | None = None,
) -> T:
    """Look again and again until `ended`, and return what was seen last. Raises WaitTimeout, PlatformUnreachable."""
    clock = clock or Clock()
    started = heard = clock.now()
    while True:
        try:
            seen = look()
            if ended(seen):
                return seen
            heard = clock.now()
        except PlatformUnreachable:
            if clock.now() - heard > PATIENCE_S:
                raise
        elapsed_s = clock.now() - started
        if timeout_s is not None and elapsed_s >= timeout_s:
            raise WaitTimeout(f"{what} within {timeout_s:g} s; it goes on. Wait again, or with a longer timeout_s.")
        left_s = timeout_s - elapsed_s if timeout_s is not None else _LONGEST_PAUSE_S
        clock.sleep(min(pause_s(elapsed_s), left_s))
