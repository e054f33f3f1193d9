"""What a replica of a front tells of its load: what is under way, when it was last asked, how long answers took.

On the way of a request there are only counters. What they come to is worked out where it is told, now and then.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raymaker.actors.reports import Activity, FleetSignals, Latency

WINDOW_S = 60.0
PERIOD_S = 10.0
"""How often a replica tells of its load at most, where its endpoint may not sleep sooner than that."""
SHORTEST_PERIOD_S = 0.5
MOST_KEPT = 4096
"""How many of the last answers of each variant the percentiles are of."""


WATCHED_PERIOD_S = 1.0
"""How often the front of a rollout tells of it, which alarms are judged by."""


def report_period_s(idle_s: float | None) -> float:
    """How often a replica tells of its load: a few times within the time after which its endpoint may sleep."""
    return PERIOD_S if idle_s is None else min(PERIOD_S, max(SHORTEST_PERIOD_S, idle_s / 4))


class Load:
    """The counters of one replica. Belongs to one event loop; `now` gives epoch seconds."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._answers: dict[str, deque[_Answer]] = {}
        self._of_fleets: dict[str, deque[_Answer]] = {}
        self.last_request_at = now()
        """When a request last came or ended; at first, when the replica started."""

    def touch(self) -> float:
        """Note that a request came or ended, and return when that is."""
        self.last_request_at = self._now()
        return self.last_request_at

    def answered(self, variant: str, began_at: float) -> None:
        """Note that a variant has answered."""
        self._note(self._answers, variant, began_at, 0)

    def begin(self) -> float:
        """Return the time, from which `fleet_answered` counts."""
        return self._now()

    def fleet_answered(self, fleet: str, began_at: float, status: int) -> None:
        """Note that a fleet has answered, with an HTTP status."""
        self._note(self._of_fleets, fleet, began_at, status)

    def latencies(self) -> dict[str, Latency]:
        """How long answers took within the last minute, by variant."""
        return {variant: Latency(len(seen), *_p50_p99(seen)) for variant, seen in self._recent(self._answers)}

    def fleets(self) -> dict[str, FleetSignals]:
        """How fleets answered within the last minute, by name."""
        return {
            fleet: FleetSignals(
                len(seen),
                sum(400 <= each.status < 500 for each in seen),  # noqa: PLR2004 - HTTP's classes
                sum(each.status >= 500 for each in seen),  # noqa: PLR2004
                *_p50_p99(seen),
            )
            for fleet, seen in self._recent(self._of_fleets)
        }

    def _note(self, answers: dict[str, deque[_Answer]], whose: str, began_at: float, status: int) -> None:
        now = self._now()
        kept = answers.get(whose)
        if kept is None:
            kept = answers[whose] = deque(maxlen=MOST_KEPT)
        kept.append(_Answer(now, now - began_at, status))

    def _recent(self, answers: dict[str, deque[_Answer]]) -> Iterator[tuple[str, list[_Answer]]]:
        """Those who answered within the last minute, with their answers."""
        since = self._now() - WINDOW_S
        for whose, kept in answers.items():
            if seen := [each for each in kept if each.at >= since]:
                yield whose, seen


class ActivityTeller:
    """Tells of one replica's load, now and then. `always`: also while nothing has happened, so that it may sleep."""

    def __init__(
        self,
        load: Load,
        pending: Callable[[], int],
        tell: Callable[[Activity], None],
        *,
        endpoint_name: str,
        replica_id: str,
        idle_s: float | None,
        is_watched: bool = False,
    ) -> None:
        self._load = load
        self._pending = pending
        self._tell = tell
        self._who = (endpoint_name, replica_id)
        self._always = idle_s is not None
        self._period_s = min(report_period_s(idle_s), WATCHED_PERIOD_S if is_watched else PERIOD_S)
        self._told: tuple[int, float] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tell. In an event loop only."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Tell no more."""
        if self._task is not None:
            self._task.cancel()

    def tell_once(self) -> None:
        """Tell of the load as it is, where that is worth a report."""
        seen = (self._pending(), self._load.last_request_at)
        if self._always or self._told != seen or seen[0]:
            self._told = seen
            self._tell(Activity(*self._who, time.time(), *seen, self._load.latencies(), self._load.fleets()))

    async def _run(self) -> None:
        while True:
            self.tell_once()
            await asyncio.sleep(self._period_s)


class _Answer(NamedTuple):
    """When an answer came, how long it took, and its status; 0 where that does not matter."""

    at: float
    took_s: float
    status: int


def _p50_p99(answers: list[_Answer]) -> tuple[float, float]:
    times = sorted(each.took_s for each in answers)
    return _percentile(times, 50), _percentile(times, 99)


def _percentile(ordered: list[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
