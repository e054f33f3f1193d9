"""A cluster that grows: what waits for room is shown to Ray's autoscaler, which adds nodes for it.

Ray's autoscaler adds nodes for placement groups that cannot be placed, and looks after the use of those there are. So
each that waits has such a group, until there is a place for it: then the group is given back, and the room goes to
whose turn it is. What is asked for lies in the cluster alone, so that a new control actor finds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ray.util.placement_group import placement_group

from raymaker.platform.cluster.machine_rooms import bundle_of, remove_rooms, states_of_rooms
from raymaker.platform.room import Queued

PREFIX = "wanted/"
MOST = 100
"""For so many of those that wait nodes are asked for at a time."""
REST_S = 15.0
"""For so long after there was a place for somebody nothing is asked for them: they are about to be started."""


class Growth:
    """What is asked of the autoscaler. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest_until: dict[str, float] = {}

    def want(self, waiting: Sequence[Queued]) -> None:
        """Ask for the room of these, the most urgent first, and for nothing else."""
        wanted = {PREFIX + job.name: job for job in waiting[:MOST]}
        now = self._clock()
        self._rest_until = {name: until for name, until in self._rest_until.items() if until > now}
        states = states_of_rooms(PREFIX)
        placed = {name for name, state in states.items() if state == "CREATED"}
        self._rest_until |= dict.fromkeys(placed, now + REST_S)
        remove_rooms(placed | (states.keys() - wanted.keys()))
        for name, job in wanted.items():
            if name not in states and name not in self._rest_until:
                placement_group([bundle_of(job.each)] * job.count, name=name)


def want_nothing() -> None:
    """Ask for no room any more, once nobody makes any."""
    remove_rooms(states_of_rooms(PREFIX))
