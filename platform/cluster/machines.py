"""The machines on Ray: those that run a job, and those that wait for one. Here a machine is found for an attempt.

A machine is a process without resources of its own; what its attempt needs is reserved as a placement group, its room,
which takes Ray some milliseconds where a process takes seconds. It keeps that for a moment after the attempt's end, so
that the next one of its kind finds it ([decision 17](../../docs/decisions/0017-machines-wait.md)).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_placement_group, list_named_actors
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from raymaker.actors.site import Site
from raymaker.actors.spec import Resources, TrainingSpec
from raymaker.platform.capacity import add
from raymaker.platform.cluster.machine import Machine, Occupation
from raymaker.platform.cluster.machine_rooms import machine_rooms, node_of, remove_rooms, reserve_room, room_name
from raymaker.platform.cluster.nodes import living_nodes
from raymaker.platform.cluster.workers import detached, find_actor
from raymaker.platform.pools.seen import MachineStatus, SeenMachine, SeenPool
from raymaker.platform.pools.sizing import WINDOW_S, Limits, superfluous, wanted_count, wanted_there
from raymaker.platform.pools.warm_pool import KeptFor

logger = logging.getLogger(__name__)

PREFIX = "machine/"
CONCURRENCY = 8
"""Calls that a machine answers at once: the one that runs its attempt, and those to stop it or to ask for it."""
ROOM_S = 0.5
"""How long Ray may take to reserve what is free, before a machine waits for it instead."""
HELD_S = 2.0
"""How long a machine keeps its room when it has nothing to run, and nobody else waits for it."""
ANSWER_S = 20.0
"""How long a machine may take to say what it runs, after the control actor has come back."""
MOST_RUNS = 200
"""After how many attempts a machine's process is made anew."""
PAUSE_S = 10.0
"""How long no machine is warmed on a node after one failed there."""
ADDED_IDLE_S = 30.0
"""How long a machine waits on a node that was added to a cluster which grows: Ray cannot take it away meanwhile."""

Attempt = tuple[str, int]


@dataclass
class _Machine:
    """One machine as the control actor knows it. `end` is answered when the attempt that it runs has ended."""

    name: str
    actor: Any
    node: str | None
    made: ray.ObjectRef[Any]
    """Answered once its process is ready."""
    is_kept: bool = True
    """Whether it waits for another attempt afterwards: not where its process lives in its attempt's reservation."""
    is_ready: bool = False
    idle_since: float = 0.0
    attempt: Attempt | None = None
    end: ray.ObjectRef[Any] | None = None
    room: PlacementGroup | None = None
    needed: Resources = field(default_factory=lambda: Resources(0.0))
    """What its room holds; nothing where that is not known."""
    run_count: int = 0
    pool_id: str | None = None
    """The warm pool that it belongs to: with nothing to run it is kept for that, its room too."""
    kept_for: KeptFor | None = None

    @property
    def may_go(self) -> bool:
        """Whether it is to end where it has nothing to run."""
        return self.pool_id is None and (not self.is_kept or self.run_count >= MOST_RUNS)


class Machines:
    """All machines of this platform. Used by one thread; `on_free` is called, from another, when one has been freed."""

    def __init__(self, site: Site, limits: Limits, on_free: Callable[[], None], *, only_on_head: bool = False) -> None:
        self._site = site
        self._limits = limits
        self._only_on_head = only_on_head
        """Whether none is to wait on other nodes, but for a moment after an attempt."""
        self._on_free = on_free
        self._machines: dict[str, _Machine] = {}
        self._knows_earlier = False
        """Whether those are among them that an earlier control actor made."""
        self._starts: deque[float] = deque()
        self._last: TrainingSpec | None = None
        """The attempt that came last: the next may be like it."""
        self._failed_at: dict[str, float] = {}
        self._suspects: frozenset[str] = frozenset()
        self._ended: set[Attempt] = set()
        self.pool = SeenPool()
        """The machines as `keep_warm` saw them last, for any thread."""

    def attempts(self) -> frozenset[Attempt]:
        """Name every attempt that a living machine runs, or is about to run."""
        return frozenset(machine.attempt for machine in self._look().values() if machine.attempt is not None)

    def run(self, spec: TrainingSpec) -> ray.ObjectRef[Any] | None:
        """Have an attempt run by a machine.

        Where its resources cannot be reserved at once, its machine waits for them: then what is returned is answered
        once it has them.
        """
        attempt = (spec.job_name, spec.attempt)
        machines = self._look()
        if (found := next((each for each in machines.values() if each.attempt == attempt), None)) is not None:
            return None if found.is_kept else found.made
        self._starts.append(time.time())
        self._last = spec
        machine = self._find_kept(spec.warm_pool) or self._find_room(spec.instance_type.resources)
        machine.attempt, machine.pool_id = attempt, spec.warm_pool
        self._await_end(machine, machine.actor.run.remote(spec))
        return None if machine.is_kept else machine.made

    def note_end(self, attempt: Attempt) -> None:
        """Hear, from any thread, that an attempt has reported its end: its machine can take another at once."""
        self._ended.add(attempt)

    def find(self, attempt: Attempt) -> Any:
        """The actor that runs an attempt, None where there is none."""
        found = (machine.actor for machine in self._look().values() if machine.attempt == attempt)
        return next(found, None)

    def keep_pools(self, pools: Mapping[str, KeptFor]) -> dict[str, bool]:
        """Let go of the machines of all other warm pools, and tell which of these have one, and whether it is free."""
        there: dict[str, bool] = {}
        if not pools and self._knows_earlier and not any(each.pool_id for each in self._machines.values()):
            return there
        for machine in sorted(self._look().values(), key=lambda each: each.attempt is None):
            machine.kept_for = pools.get(pool_id := machine.pool_id or "")
            if machine.attempt is None and pool_id and (machine.kept_for is None or pool_id in there):
                machine.pool_id, machine.kept_for, machine.idle_since = None, None, time.time()
                _give_back(machine)
            elif pool_id and machine.room is not None:
                there[pool_id] = machine.attempt is None
        return there

    def keep_warm(self, now: float) -> None:
        """Have as many machines wait on each node as demand asks for, and end those that are too many."""
        nodes = living_nodes()
        homes = [node for node in nodes if node.is_head or not self._only_on_head]
        while self._starts and now - self._starts[0] > WINDOW_S:
            self._starts.popleft()
        wanted = wanted_count(self._limits, self._starts, len(homes), now)
        machines = self._look()
        self.give_room(HELD_S)
        cpus_each = self._last.instance_type.resources.cpus if self._last is not None else 0.0
        warming = Counter(each.node for each in self._warming())
        running = Counter(each.node for each in machines.values() if each.attempt is not None)
        for node in nodes:
            idle = self._idle_on(node.id)
            if node in homes:
                limits = self._limits
                there = wanted_there(limits, wanted, node.resources.cpus, cpus_each, running[node.id])
            else:
                limits, there = replace(self._limits, idle_s=ADDED_IDLE_S), 0
            for name in superfluous(limits, {each.name: each.idle_since for each in idle}, there, now):
                self._retire(machines.pop(name))
            may_warm = now - self._failed_at.get(node.id, 0.0) > PAUSE_S
            for _ in range(there - len(idle) - warming[node.id] if may_warm else 0):
                self._make(PREFIX + secrets.token_hex(6), node.id)
        seen = tuple(map(_seen, machines.values()))
        self.pool = SeenPool(seen, self._limits.least, self._limits.most, wanted, len(self._starts))

    def held(self) -> Resources:
        """What machines keep that have nothing to run: it is given back as soon as others want it."""
        self._look()
        return reduce(add, (each.needed for each in self._idle() if each.room is not None), Resources(0.0))

    def give_room(self, older_than_s: float = 0.0) -> bool:
        """Give back the room of machines that have nothing to run; tells whether there was any."""
        held = [each for each in self._idle() if each.room and time.time() - each.idle_since >= older_than_s]
        for machine in held:
            _give_back(machine)
        return bool(held)

    def sweep(self) -> list[str]:
        """Give back rooms that belong to no living machine, at the second look; returns their names."""
        mine = {room_name(name) for name in self._look()}
        found = set(machine_rooms())
        abandoned, self._suspects = sorted((found - mine) & self._suspects), frozenset(found - mine)
        remove_rooms(abandoned)
        return abandoned

    def _look(self) -> dict[str, _Machine]:
        """See which machines live, which are ready, and which have become free."""
        if not self._knows_earlier:
            self._machines, self._knows_earlier = self._find_all(), True
        names = set(list_named_actors())
        for machine in list(self._machines.values()):
            if machine.end is not None and self._has_ended(machine, machine.end):
                self._free(machine)
            if machine.name not in names or not self._is_well(machine):
                del self._machines[machine.name]
                self._end(machine)
            elif machine.attempt is None and machine.may_go:
                self._retire(self._machines.pop(machine.name))
        self._ended.intersection_update([machine.attempt for machine in self._machines.values() if machine.attempt])
        return self._machines

    def _is_well(self, machine: _Machine) -> bool:
        """Take note that a machine is ready; False where it failed to become so."""
        if not machine.is_ready and _is_answered(machine.made):
            try:
                machine.node = ray.get(machine.made).node_id
            except RayError as error:
                logger.warning("%s did not start: %s", machine.name, error)
                self._failed_at[machine.node or ""] = time.time()
                return False
            machine.is_ready, machine.idle_since = True, time.time()
            if machine.attempt is None and self._last is not None:
                machine.actor.expect.remote(self._last)
        return True

    def _has_ended(self, machine: _Machine, end: ray.ObjectRef[Any]) -> bool:
        """Tell whether a machine's attempt has ended; of one that is not kept, whether nothing is left to do either."""
        if machine.is_kept and machine.attempt in self._ended:
            return True
        if not _is_answered(end):
            return False
        try:
            ray.get(end)
        except RayError as error:
            logger.warning("%s lost %s: %s", machine.name, machine.attempt, error)
        return True

    def _free(self, machine: _Machine) -> None:
        """Take note that a machine runs nothing any more."""
        machine.attempt, machine.end = None, None
        machine.run_count += 1
        machine.idle_since = time.time()

    def _retire(self, machine: _Machine) -> None:
        """End a machine's process once what its attempts have left is removed."""
        if machine.is_kept:
            machine.actor.retire.remote()
        _give_back(machine)

    def _end(self, machine: _Machine) -> None:
        """End a machine's process at once, if it lives."""
        ray.kill(machine.actor)
        _give_back(machine)

    def _find_kept(self, pool_id: str | None) -> _Machine | None:
        """Find the machine that is kept for a warm pool."""
        kept = (each for each in self._machines.values() if pool_id is not None and each.pool_id == pool_id)
        return next((each for each in kept if each.is_ready and each.attempt is None and each.room is not None), None)

    def _find_room(self, needed: Resources) -> _Machine:
        """Find a machine that has what an attempt needs, or make one that will wait for it."""
        waiting = [*self._idle(), *self._warming()] if not needed.gpus else []
        has_room = (each for each in waiting if each.room is not None and each.needed == needed)
        if (machine := next(has_room, None)) is not None:
            return machine
        by_node = {each.node: each for each in reversed(waiting)}
        for node, machine in by_node.items():
            _give_back(machine)
            room = reserve_room(machine.name, needed, str(node))
            if node_of(room, ROOM_S / len(by_node)) or (self.give_room() and node_of(room, ROOM_S)):
                machine.room, machine.needed = room, needed
                return machine
            remove_placement_group(room)
        self.give_room()
        name = PREFIX + secrets.token_hex(6)
        room = reserve_room(name, needed)
        there = node_of(room, ROOM_S) if not needed.gpus else None
        machine = self._make(name, there) if there is not None else self._make(name, None, room, needed.gpus)
        machine.room, machine.needed = room, needed
        return machine

    def _idle(self) -> list[_Machine]:
        """The machines that wait for any attempt, the last used first: what it needs is still in memory."""
        return sorted((each for each in self._free_ones() if each.is_ready), key=lambda machine: -machine.idle_since)

    def _warming(self) -> list[_Machine]:
        """The machines that will wait for an attempt once they are ready."""
        return [each for each in self._free_ones() if not each.is_ready]

    def _free_ones(self) -> list[_Machine]:
        return [each for each in self._machines.values() if each.attempt is None and each.pool_id is None]

    def _idle_on(self, node: str | None) -> list[_Machine]:
        return [machine for machine in self._idle() if machine.node == node]

    def _make(self, name: str, node: str | None, room: PlacementGroup | None = None, gpus: float = 0.0) -> _Machine:
        """Start a machine on a node, or in a reservation, whose GPUs it then sees."""
        where: dict[str, Any] = {}
        if room is not None:
            where = {"scheduling_strategy": PlacementGroupSchedulingStrategy(room), "num_gpus": gpus}
        elif node is not None:
            where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
        handle = detached(Machine, name, CONCURRENCY, **where).remote(self._site)
        made = _Machine(name, handle, node, handle.occupation.remote(), is_kept=room is None)
        self._machines[name] = made
        return made

    def _find_all(self) -> dict[str, _Machine]:
        """Find the machines that an earlier control actor made. One that does not answer is ended."""
        names = [name for name in list_named_actors() if name.startswith(PREFIX)]
        handles = {name: find_actor(name) for name in names}
        made = [_Machine(name, each, None, each.occupation.remote()) for name, each in handles.items() if each]
        deadline = time.monotonic() + ANSWER_S
        return {machine.name: machine for machine in made if self._recall(machine, deadline)}

    def _recall(self, machine: _Machine, deadline: float) -> bool:
        """Ask a machine what it runs; False where it does not say."""
        try:
            occupation: Occupation = ray.get(machine.made, timeout=max(0.0, deadline - time.monotonic()))
        except RayError as error:
            logger.warning("%s does not say what it runs, and is ended: %s", machine.name, error)
            self._end(machine)
            return False
        machine.node, machine.attempt = occupation.node_id, occupation.attempt
        machine.run_count, machine.is_kept = occupation.run_count, occupation.is_kept
        machine.pool_id = occupation.pool_id
        machine.is_ready, machine.idle_since = True, time.time()
        if machine.attempt is not None:
            self._await_end(machine, machine.actor.wait.remote())
        with contextlib.suppress(ValueError):
            machine.room = get_placement_group(room_name(machine.name))
        return True

    def _await_end(self, machine: _Machine, end: ray.ObjectRef[Any]) -> None:
        machine.end = end
        end.future().add_done_callback(lambda _: self._on_free())


def _give_back(machine: _Machine) -> None:
    """Give back what is reserved for a machine, if anything is."""
    if machine.room is not None:
        remove_placement_group(machine.room)
        machine.room = None


def _seen(machine: _Machine) -> SeenMachine:
    waiting = MachineStatus.WAITING if machine.is_ready else MachineStatus.WARMING
    status = waiting if machine.attempt is None else MachineStatus.RUNNING
    job_name, attempt = machine.attempt or (None, None)
    seen = SeenMachine(machine.name, machine.node, status, machine.run_count, machine.idle_since, job_name, attempt)
    if machine.attempt is not None or (kept := machine.kept_for) is None:
        return seen
    return replace(seen, status=MachineStatus.KEPT, job_name=kept.job_name, kept_until=kept.until)


def _is_answered(answer: ray.ObjectRef[Any]) -> bool:
    return bool(ray.wait([answer], timeout=0)[0])
