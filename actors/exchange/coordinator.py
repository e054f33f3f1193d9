"""What the machines of one job start tell each other: who is there, the first failure, rounds of parts, named values.

A plain class without Ray, made an actor in across.py; it lives as long as the start it was made for. Large arrays do
not pass through it: a round carries small parts, or references to where the large ones lie.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raymaker.actors.exchange.seam import Call, Failure, Value
from raymaker.actors.exchange.values import LocalValues
from raymaker.actors.spec import Place

BEAT_S = 0.5
"""How often a machine is to be heard."""
SILENCE_S = 8.0
"""A machine that was not heard for so long is gone. Ray sees dead processes sooner; this is for one that hangs."""
LONGEST_STEP_S = 1.0
"""No more than this counts as silence between two beats: if the coordinator itself stood still, nobody was silent."""


@dataclass
class _Machine:
    """What is known of a machine that has joined. `sequence` counts the calls it has entered."""

    has_torch: bool
    silent_s: float = 0.0
    sequence: int = 0
    doing: str = ""
    has_left: bool = False


class Coordinator:
    """The meeting point of a job's machines. Many threads call it; `join` and `swap` wait, the others do not.

    Answers that are a Failure say why nobody can go on. They are returned, not raised, so that they cross processes
    as they are.
    """

    def __init__(
        self, machine_count: int, containers_per_machine: int = 1, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = machine_count
        self._containers = containers_per_machine
        self._clock = clock
        self._changed = threading.Condition()
        self._machines: dict[int, _Machine] = {}
        self._rounds: dict[int, dict[int, Mapping[int, object]]] = {}
        self._failure: Failure | None = None
        self._last_beat = clock()
        self._values = LocalValues()

    def greet(self) -> None:
        """Be called, by a machine that is to join."""

    def join(self, machine: int, has_torch: bool, timeout_s: float) -> bool | Failure:  # noqa: FBT001 - it crosses Ray
        """Wait until every machine is here; tells whether all of them have torch."""
        with self._changed:
            if machine in self._machines or not 0 <= machine < self._count:
                return Failure(f"{self._name([machine])} cannot join: it has joined before, or the job has no such one")
            self._machines[machine] = _Machine(has_torch)
            if self._is_complete():
                self._last_beat = self._clock()  # silence counts from here: who waits in `join` does not beat
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._failure or self._is_complete(), timeout_s)
            if not self._is_complete():
                missing = [index for index in range(self._count) if index not in self._machines]
                self._fail(f"{self._name(missing)} did not come within {timeout_s:g} s", missing, lost=True)
            return self._failure or all(one.has_torch for one in self._machines.values())

    def beat(self, machine: int, sequence: int, doing: str) -> Failure | None:
        """Hear that a machine lives, how many calls it has entered and what the last one is."""
        with self._changed:
            now = self._clock()
            step_s = min(now - self._last_beat, LONGEST_STEP_S)
            self._last_beat = now
            for one in self._machines.values():
                one.silent_s += step_s
            self._hear(machine, sequence, doing)
            self._judge()
            return self._failure

    def fail(self, failure: Failure) -> Failure:
        """Keep a failure, unless there is one already; tells the first one."""
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()
            return self._failure

    def stalled(self, machine: int, sequence: int, doing: str, waited_s: float) -> Failure:
        """Hear that a machine has waited too long in a call; blames those that have not entered it."""
        with self._changed:
            self._hear(machine, sequence, doing)
            behind = [index for index, one in self._machines.items() if one.sequence < sequence]
            if behind:
                return self._fail(f"{self._name(behind)} did not join {doing} within {waited_s:g} s", behind)
            return self._fail(
                f"{doing} did not end within {waited_s:g} s though every machine has joined it: "
                "see whether the network between the machines carries data"
            )

    def leave(self, machine: int, sequence: int) -> None:
        """Hear that a machine makes no more calls. Who enters another call than it had will be told so."""
        with self._changed:
            one = self._machines[machine]
            one.sequence, one.has_left = sequence, True
            self._judge()

    def swap(self, machine: int, number: int, parts: Mapping[int, object]) -> dict[int, object] | Failure:
        """Give a part to some machines and wait for theirs: round `number`, which every machine must enter.

        Tells the parts for this machine by who gave them.
        """
        with self._changed:
            given = self._rounds.setdefault(number, {})
            given[machine] = parts
            if len(given) == self._count:
                del self._rounds[number]  # who waits holds it; nobody else asks for it again
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._failure or len(given) == self._count)
            return self._failure or {index: theirs[machine] for index, theirs in given.items() if machine in theirs}

    def put_value(self, name: str, content: bytes, content_type: str) -> int:
        """Replace a named value, as seam.Values has it."""
        return self._values.put(name, content, content_type)

    def add_value(self, name: str, content: bytes, dtype: str) -> int:
        """Add to a named value, as seam.Values has it."""
        return self._values.add(name, content, dtype)

    def get_value(self, name: str, after_version: int, wait_s: float) -> Value | None:
        """Read a named value, as seam.Values has it."""
        return self._values.get(name, after_version, wait_s)

    def _is_complete(self) -> bool:
        return len(self._machines) == self._count

    def _hear(self, machine: int, sequence: int, doing: str) -> None:
        one = self._machines[machine]
        one.silent_s, one.sequence, one.doing = 0.0, sequence, doing

    def _judge(self) -> None:
        """See whether a machine is gone, or has left while others go on."""
        gone = [index for index, one in self._machines.items() if one.silent_s > SILENCE_S and not one.has_left]
        if gone and self._is_complete():
            self._fail(f"{self._name(gone)} is gone: nothing was heard from there for {SILENCE_S:g} s", gone, lost=True)
        ahead = max(self._machines.values(), key=lambda one: one.sequence)
        left = [index for index, one in self._machines.items() if one.has_left and one.sequence < ahead.sequence]
        if left:
            self._fail(f"{self._name(left)} has ended, while others wait for it in {ahead.doing}", left)

    def _fail(self, message: str, blamed: Sequence[int] = (), *, lost: bool = False) -> Failure:
        rank = Place(min(blamed), self._count, self._containers).ranks[0] if blamed else None
        return self.fail(Failure(message, rank, lost))

    def _name(self, machines: Sequence[int]) -> str:
        return name_machines(machines, Place(0, self._count, self._containers))


def find_disagreement(calls: Sequence[Call], place: Place) -> Failure | None:
    """Compare the calls that the machines want to make, in machine order; blames the first that differs from most."""
    groups: dict[Call, list[int]] = {}
    for machine, call in enumerate(calls):
        groups.setdefault(call, []).append(machine)
    if len(groups) == 1:
        return None
    usual = max(groups.values(), key=len)  # of equals the first
    odd = min(machine for machines in groups.values() if machines is not usual for machine in machines)
    said = "; ".join(f"{name_machines(machines, place)}: {call.describe()}" for call, machines in groups.items())
    return Failure(
        f"the ranks make different calls ({said}): every rank must make the same calls in the same order",
        Place(odd, place.machine_count, place.containers_per_machine).ranks[0],
    )


def name_machines(machines: Sequence[int], place: Place) -> str:
    """Name machines with their ranks, e.g. `machine 1 (ranks 2-3)`."""
    return " and ".join(f"machine {machine} ({_name_ranks(machine, place)})" for machine in machines)


def _name_ranks(machine: int, place: Place) -> str:
    ranks = Place(machine, place.machine_count, place.containers_per_machine).ranks
    return f"ranks {ranks[0]}-{ranks[-1]}" if len(ranks) > 1 else f"rank {ranks[0]}"
