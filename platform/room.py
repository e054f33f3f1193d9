"""What the cluster has left in one step of the reconciler, handed out in the order in which jobs came. Pure.

A job that waits keeps what it needs from later ones: they start only with what it does not use, so that a stream of
small jobs never starves a large one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raymaker.actors.spec import Resources
from raymaker.platform.capacity import shortage, subtract


class Room:
    """The free room of one step."""

    def __init__(self, free: Resources) -> None:
        self._free = free
        self._waiting: list[str] = []

    def take(self, name: str, needed: Resources, what: str) -> str | None:
        """Take what a job needs. Returns None where it is there, else why the job waits, in words.

        `what` says what it waits for: `an instance of ml.m5.large`.
        """
        self._free = subtract(self._free, needed)
        missing = shortage(_of_kinds(self._free, needed))
        if not missing:
            return None
        reason = f"Waiting for {what}: {missing} short of what is free"
        if self._waiting:
            reason += f", behind {len(self._waiting)} other job(s), first {self._waiting[0]}"
        self._waiting.append(name)
        return reason

    def is_wanted(self, held: Resources) -> bool:
        """Tell whether somebody waits for some of what is held."""
        return bool(self._waiting) and bool(shortage(_of_kinds(self._free, held)))


def _of_kinds(free: Resources, needed: Resources) -> Resources:
    """Look only at those kinds of resources of which something is needed."""
    return Resources(
        free.cpus if needed.cpus else 0,
        free.memory_bytes if needed.memory_bytes else 0,
        free.gpus if needed.gpus else 0,
    )


@dataclass(frozen=True)
class Queued:
    """A job that waits for its turn. `place` starts it where there is room, and else says why it waits."""

    created_at: float
    name: str
    place: Callable[[Room], None]
