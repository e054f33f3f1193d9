"""How many machines should wait for jobs, and which of those that wait may go. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WINDOW_S = 60.0
"""How far back starts tell of those to come."""
WARMING_S = 4.0
"""About how long a machine takes to be ready: for what starts meanwhile others must be there."""


@dataclass(frozen=True)
class Limits:
    """How many machines may wait on one node: at least `least`, with demand up to `most`.

    One above that goes when it has not been used for `idle_s`, so that the next burst finds what the last one needed.
    """

    least: int
    most: int
    idle_s: float = 300.0


def wanted_count(limits: Limits, starts: Iterable[float], node_count: int, now: float) -> int:
    """Say how many machines should wait on each of `node_count` nodes; `starts` are when jobs started (epoch s)."""
    recent = sum(1 for moment in starts if 0 <= now - moment <= WINDOW_S)
    expected = math.ceil(recent * WARMING_S / WINDOW_S / max(1, node_count))
    return min(limits.most, limits.least + expected) if recent else min(limits.least, limits.most)


def wanted_there(limits: Limits, wanted: int, node_cpus: float, cpus_each: float, running_count: int) -> int:
    """Say how many of `wanted` should wait on a node: no more than could run beside those that do, but the least.

    What comes is taken to need what came last, `cpus_each`; 0 where that is not known. On a node without CPUs none
    should.
    """
    if not node_cpus:
        return 0
    if not cpus_each:
        return wanted
    return min(wanted, max(limits.least, math.floor(node_cpus / cpus_each) - running_count))


def superfluous(limits: Limits, idle_since: Mapping[str, float], wanted: int, now: float) -> list[str]:
    """Name the machines of one node that may go: those not needed, unused for long or too many, longest idle first."""
    longest_first = sorted(idle_since, key=lambda name: (idle_since[name], name))
    above = longest_first[: max(0, len(longest_first) - wanted)]
    too_many = len(longest_first) - max(limits.most, wanted)
    return [name for index, name in enumerate(above) if index < too_many or now - idle_since[name] > limits.idle_s]
