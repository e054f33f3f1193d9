"""Where a gang's machines meet: what each has reached, an alarm, a wish to stop. Lives beside the gang's supervisor.

A plain class that many threads call. Nobody waits in it: machines ask again until what they wait for is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Start:
    """What is known of one start of the gang's machines."""

    machine_count: int
    gathered: dict[str, dict[int, Any]] = field(default_factory=dict)
    alarmed: bool = False


class Board:
    """The board of one attempt, through all its starts. A later start wipes out what an earlier one left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard_at = clock()
        self._lock = threading.Lock()
        self._number = 0
        self._start = _Start(0)
        self._stop_requested = False
        self.wanted_revision = 0
        """The latest change of the job that was asked for."""
        self.begun = threading.Event()
        """Set once machines have begun a start."""

    @property
    def latest_start(self) -> int:
        """The number of the start that runs or ran last, 0 before the first."""
        return self._number

    @property
    def machine_count(self) -> int:
        """How many machines the latest start has."""
        return self._start.machine_count

    def begin(self, start: int, machine_count: int) -> None:
        """Note that a start's machines are there."""
        with self._lock:
            if start > self._number:
                self._number, self._start = start, _Start(machine_count)
            self._heard_at = self._clock()
        self.begun.set()

    def offer(self, start: int, name: str, machine_index: int, mine: Any) -> Mapping[int, Any]:
        """Leave `mine`, in place of what the machine left there before, and return what there is so far, by machine."""
        with self._lock:
            if start != self._number:
                return {}
            there = self._start.gathered.setdefault(name, {})
            there[machine_index] = mine
            return dict(there)

    def has_come(self, start: int, name: str) -> bool:
        """Tell whether any machine of this start has left something there."""
        with self._lock:
            return start == self._number and name in self._start.gathered

    def gather(self, start: int, name: str, machine_index: int, mine: Any) -> Sequence[Any] | None:
        """Leave `mine`, and return everybody's, by machine; None while some have not come. Ask again then."""
        there = self.offer(start, name, machine_index, mine)
        count = self._start.machine_count
        return [there[index] for index in range(count)] if there and len(there) == count else None

    def has_gathered(self, name: str) -> bool:
        """Tell whether all machines of the latest start have come to `name`."""
        with self._lock:
            return self._number > 0 and len(self._start.gathered.get(name, {})) == self._start.machine_count

    def raise_alarm(self, start: int) -> None:
        """Note that a container of this start ended badly."""
        with self._lock:
            if start == self._number:
                self._start.alarmed = True

    def want(self, revision: int) -> None:
        """Note that a change of the job is to be looked at, in this start and any later one."""
        self.wanted_revision = max(revision, self.wanted_revision)

    def request_stop(self) -> None:
        """Note that the job is to stop, in this start and any later one."""
        self._stop_requested = True

    def silent_s(self) -> float:
        """How long no machine has been heard of, in seconds."""
        with self._lock:
            return self._clock() - self._heard_at

    def state(self, start: int) -> tuple[bool, bool]:
        """Tell whether the job is to stop, and whether this start's alarm was raised."""
        with self._lock:
            self._heard_at = self._clock()
            return self._stop_requested, self._start.alarmed and start == self._number
