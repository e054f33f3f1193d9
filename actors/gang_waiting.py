"""A gang that waits: its processes are there, without resources, before the attempt is that they will run.

Ray Train runs it as it runs any gang, but its machines stand still at their first step until there is an attempt. What
the attempt needs is reserved on their nodes then. A gang that waits runs one start of one attempt: should it be lost,
the next starts are those of any other gang (`gang.py`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Any

from ray import train
from ray.train.v2.api.config import ScalingConfig
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from raymaker.actors.exchange.across import start_coordinator
from raymaker.actors.gang import Attempt, Gang
from raymaker.actors.gang_room import marked_bytes
from raymaker.actors.gang_worker import begin_start
from raymaker.actors.reports import JobReporter
from raymaker.actors.site import Site
from raymaker.actors.spec import Standing, TrainingSpec

logger = logging.getLogger(__name__)

ROOM_S = 1.0
"""How long Ray may take to reserve what is free, before the gang is formed anew where there is room."""
LOOK_S = 0.002


class WaitingGang(Gang):
    """Supervises a gang that waits, and then the one attempt for which it did.

    `name` tells it from others. `likely` is an attempt like which the next may be.
    """

    def __init__(
        self,
        name: str,
        machine_count: int,
        site: Site,
        reporter: JobReporter,
        actor: Any,
        *,
        likely: TrainingSpec | None,
    ) -> None:
        super().__init__(site, reporter, actor)
        self._name = name
        self._likely = likely
        self._machine_count = machine_count
        self._nodes: dict[int, str] = {}
        self._changed = threading.Condition()
        self._told: Standing | None = None
        self._is_told = False
        self._over = threading.Event()
        self._error: Exception | None = None
        """What the machines that waited ended with."""
        self._taken = False
        threading.Thread(target=self._hold, name="hold", daemon=True).start()

    def run(self, spec: TrainingSpec) -> None:
        """Have the machines that wait run an attempt, the only one that this object ever has."""
        with self._changed:
            if self._taken:
                raise RuntimeError(f"the gang {self._name} has run an attempt already, and cannot take another")
            self._taken = True
        super().run(spec)

    def taken_for(self) -> Attempt | None:
        """Name the attempt that runs here; None while it waits for one."""
        return self._attempt if self._taken else None

    def gathered(self) -> bool:
        """Block until all machines wait; False where they will not any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_complete or self._over.is_set())
            return self._is_complete

    def await_attempt(self, machine_index: int, node: str) -> Standing | None:
        """Block, for a machine on `node`, until a start has begun for it; None where none is to run there."""
        with self._changed:
            self._nodes[machine_index] = node
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_told)
            return self._told

    @property
    def _is_complete(self) -> bool:
        return len(self._nodes) == self._machine_count

    def _hold(self) -> None:
        """Have machines wait, and see them end. That is the end of all where they had no attempt to run yet."""
        claimant = (self._name, 0)
        room = {"memory": marked_bytes(1, claimant)}
        scaling = ScalingConfig(num_workers=self._machine_count, resources_per_worker=room)
        waiting = {"spec": None, "likely": self._likely, "coordinator": start_coordinator(self._machine_count, 1)}
        try:
            self._reporter.greet()
            self._fit_trainer(claimant, waiting, scaling, 0)
        except Exception as error:
            logger.warning("the machines of %s ended: %s", self._name, error)
            self._error = error
        with self._changed:
            self._over.set()
            self._changed.notify_all()
            if not self._taken:
                self._ended.set()

    def _fit(self) -> None:
        """Run the attempt on the machines that wait. Without room for it there, or once they are lost, form others."""
        room = self._reserve()
        self._tell(self._begin() if room is not None else None)
        self._over.wait()
        if room is not None:
            remove_placement_group(room)
            if self._error is None:
                return
            if not isinstance(self._error, train.TrainingFailedError) or self._max_failures == 0:
                raise self._error
            self._max_failures -= self._max_failures > 0
        super()._fit()

    def _begin(self) -> Standing | None:
        """Begin the start that the machines run; None where the attempt is no longer the job's."""
        standing = begin_start(self._spec, self._reporter, f"{self._machine_count} instances that waited")
        if standing is not None:
            self.begin(standing.spec.start, self._machine_count)
        return standing

    def _tell(self, standing: Standing | None) -> None:
        with self._changed:
            self._told, self._is_told = standing, True
            self._changed.notify_all()

    def _reserve(self) -> PlacementGroup | None:
        """Reserve what the attempt needs on the node of those that wait; None where that is several, or has no room."""
        needed = self._spec.instance_type.resources
        if self._over.is_set() or len(set(self._nodes.values())) > 1:
            return None
        memory = marked_bytes(needed.memory_bytes, self._attempt)
        bundle = {kind: amount for kind, amount in {"CPU": needed.cpus, "memory": memory}.items() if amount}
        there = [{"ray.io/node-id": node} for node in self._nodes.values()]
        room: PlacementGroup = placement_group([bundle] * len(there), bundle_label_selector=there)
        deadline = time.monotonic() + ROOM_S
        while placement_group_table(room)["state"] != "CREATED":
            if time.monotonic() >= deadline:
                with contextlib.suppress(ValueError):
                    remove_placement_group(room)
                return None
            time.sleep(LOOK_S)
        return room
