"""What is told of machines: which there are, what each does, and how many should wait."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class MachineStatus(enum.StrEnum):
    """What a machine does."""

    WARMING = "Warming"
    """Its process starts."""
    WAITING = "Waiting"
    """It is ready, and runs nothing."""
    RUNNING = "Running"
    """It runs an attempt at a job, or is about to."""
    KEPT = "Kept"
    """It runs nothing, and is kept with its room for a job that matches the one that it ran last."""


@dataclass(frozen=True)
class SeenMachine:
    """One machine. `since` is when it was ready or last ended an attempt (epoch s), 0 while it warms up.

    `job_name` is the job that it runs, or is kept after; `kept_until` (epoch s) is known of one that is kept.
    """

    name: str
    node_id: str | None
    status: MachineStatus
    run_count: int
    since: float
    job_name: str | None = None
    attempt: int | None = None
    kept_until: float | None = None


@dataclass(frozen=True)
class SeenContainer:
    """A container of an image that waits inside its start on a node, since then (epoch s)."""

    node_id: str
    image: str
    since: float


@dataclass(frozen=True)
class SeenPool:
    """All machines, and why as many wait as do: of each node at least `least`, with demand up to `most`."""

    machines: tuple[SeenMachine, ...] = ()
    least: int = 0
    most: int = 0
    wanted: int = 0
    """How many should wait on each node now."""
    recent_starts: int = 0
    """How many attempts were started in the last minute."""
    containers: tuple[SeenContainer, ...] = ()
    """Those that wait, of the nodes that answered."""
