"""What the cluster has left in one step of the reconciler, handed out in the order in which jobs are offered. Pure.

A job that waits keeps what it needs from those that are offered after it, so that a stream of small jobs never starves
a large one. From other accounts it keeps that without condition for a while only: then those may use it that are sure
to have ended before it could begin. See docs/decisions/0016-turns-of-accounts.md.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from raymaker.actors.spec import Resources
from raymaker.platform.capacity import add, missing, multiply, shortage, subtract

END_S = 600.0
"""How long a job may take beside the time that its limit allows: its image and data before, its model after."""
LEAST = Resources(cpus=0.01)
"""What an instance needs at least: the catalogue takes no smaller ones."""
PATIENCE_S = 900.0
"""How long what is kept for a job is kept from every job of another account."""


@dataclass(frozen=True)
class Queued:
    """A job that waits for its turn, and how it is moved.

    It needs `count` instances with so much `each`. `what` says what it waits for, `an instance of ml.m5.large`;
    `limit_s` is how long it may take at most. `told` is what its record says of its waiting, None where it says
    nothing yet. `start` and `tell` take the time, in epoch seconds; `tell` writes within the transaction that it is
    given.
    """

    account: str
    created_at: float
    name: str
    each: Resources
    count: int
    what: str
    limit_s: float
    told: str | None
    start: Callable[[float], None]
    tell: Callable[[Connection, str, float], None]

    @functools.cached_property
    def needed(self) -> Resources:
        """What all its instances need together."""
        return multiply(self.each, self.count)

    @property
    def waits(self) -> str:
        """That it waits, in words, without saying why."""
        return f"Waiting for {self.what}"


@dataclass(frozen=True)
class Holding:
    """What a job holds that was started, or what is kept warm after one, and by when that ends, in epoch seconds."""

    account: str
    held: Resources
    ends_by: float
    is_kept_warm: bool = False


class Room:
    """The free room of one step. `kept_since` says of jobs, by name, since when room has been kept for them."""

    def __init__(
        self, free: Resources, holdings: Sequence[Holding] = (), now: float = 0.0, kept_since: Mapping[str, float] = {}
    ) -> None:
        self._unused = free
        """What nobody took in this step."""
        self._left = free
        """The same without what is kept for jobs that wait; below zero where they need more than there is."""
        self._holdings = sorted(holdings, key=lambda holding: holding.ends_by)
        self._now = now
        self._kept_since = kept_since
        self._scarce: dict[str, set[str]] = defaultdict(set)
        """The kinds of resources that each account's waiting jobs lack."""
        self._latest_starts: dict[str, float] = {}
        self.kept: list[Queued] = []
        """The jobs for which room is kept: of each account the first that lacks a kind."""

    @property
    def is_full(self) -> bool:
        """Whether nothing can be started any more: every instance type has some CPU."""
        return bool(missing(self._unused, LEAST))

    def take(self, job: Queued) -> str | None:
        """Take what a job needs. Returns None where it is there, else why the job waits, in words."""
        after = subtract(self._left, job.needed)
        lacking = missing(self._left, job.needed)
        if not lacking or self._may_pass(job):
            self._left, self._unused = after, subtract(self._unused, job.needed)
            return None
        if lacking <= self._scarce[job.account]:
            return job.waits  # as one that came before it does, for which room is kept
        reason = f"{job.waits}: {shortage(_of_kinds(after, job.needed))} short of what is free"
        if others := sum(kept.account != job.account for kept in self.kept):
            reason += f", less what is kept for {others} job(s) of other accounts"
        if warm := sum(it.is_kept_warm and it.ends_by > self._now for it in self._holdings):
            reason += f"; {warm} machine(s) are kept in warm pools"
        self._scarce[job.account] |= lacking
        self._left = after
        self.kept.append(job)
        return reason

    def is_wanted(self, held: Resources) -> bool:
        """Tell whether somebody waits for some of what is held."""
        return bool(self.kept) and bool(missing(self._left, held))

    def _may_pass(self, job: Queued) -> bool:
        """Whether a job may use what is kept for others: it delays none of them, as all of them wait for longer."""
        if not self.kept or missing(self._unused, job.needed):
            return False
        return all(kept.account != job.account and self._outlasts(kept, job.limit_s) for kept in self.kept)

    def _outlasts(self, kept: Queued, limit_s: float) -> bool:
        if self._now - self._kept_since.get(kept.name, self._now) < PATIENCE_S:
            return False
        if kept.name not in self._latest_starts:
            self._latest_starts[kept.name] = self._begins_by(kept)
        return self._now + limit_s <= self._latest_starts[kept.name]

    def _begins_by(self, job: Queued) -> float:
        """When a job can begin at the latest, by the limits of those that run; infinity where their end is no help."""
        room = self._unused
        for holding in self._holdings:
            room = add(room, holding.held)
            if not missing(room, job.needed):
                return holding.ends_by
        return math.inf


def _of_kinds(free: Resources, needed: Resources) -> Resources:
    """Look only at those kinds of resources of which something is needed."""
    return Resources(
        free.cpus if needed.cpus else 0,
        free.memory_bytes if needed.memory_bytes else 0,
        free.gpus if needed.gpus else 0,
    )
