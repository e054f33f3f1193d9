"""Whose turn it is among the accounts that wait: theirs who hold least, and of equals who waited longest. Pure.

Fair by dominant resource (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011): an account's share is the largest
part that it holds of any one kind of resource. Within an account jobs come in the order in which they were made.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence

from raymaker.actors.spec import Resources
from raymaker.platform.capacity import add
from raymaker.platform.room import Holding, Queued


class Turns:
    """Orders what waits, step after step, and remembers when each account was served last."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self._stamps: dict[str, int] = {}
        """Since which turn an account waits for its next: its last start, or when it was first seen."""

    def served(self, account: str) -> None:
        """Note that a job of the account was started."""
        self._stamps[account] = next(self._count)

    def order(self, queue: Iterable[Queued], holdings: Sequence[Holding], free: Resources) -> Iterator[Queued]:
        """Give the jobs one by one. Each counts as held once the next is asked for, whether or not it was started."""
        held: dict[str, Resources] = defaultdict(lambda: Resources(0))
        for holding in holdings:
            held[holding.account] = add(held[holding.account], holding.held)
        total = free
        for of_account in held.values():
            total = add(total, of_account)
        lines = self._lines(queue)

        def turn(account: str) -> tuple[float, int, str]:
            return dominant_share(held[account], total), self._stamps[account], account

        turns = [turn(account) for account in lines]
        heapq.heapify(turns)
        while turns:
            account = heapq.heappop(turns)[-1]
            job = lines[account].popleft()
            yield job
            held[account] = add(held[account], job.needed)
            if lines[account]:
                heapq.heappush(turns, turn(account))

    def _lines(self, queue: Iterable[Queued]) -> dict[str, deque[Queued]]:
        lines: dict[str, deque[Queued]] = {}
        for job in sorted(queue, key=lambda job: (job.created_at, job.name)):
            if job.account not in self._stamps:
                self.served(job.account)
            lines.setdefault(job.account, deque()).append(job)
        return lines


def dominant_share(held: Resources, total: Resources) -> float:
    """The largest part of any one kind, 0 to 1; a kind of which there is nothing counts for nothing."""
    kinds = ((held.cpus, total.cpus), (held.memory_bytes, total.memory_bytes), (held.gpus, total.gpus))
    return max((part / whole for part, whole in kinds if whole > 0), default=0.0)
