"""Transform jobs in the reconciler's loop: those that were started are followed, the others wait for room.

Knows no Ray: what it asks of the cluster is the `TransformFleet` protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from raymaker.actors.spec import InstanceType
from raymaker.platform.database import transforms
from raymaker.platform.database.engine import Database
from raymaker.platform.room import Queued, Room
from raymaker.platform.transforming.transform_jobs import MachineState, TransformJobRecord, TransformJobStatus
from raymaker.platform.transforming.transform_specs import resources_needed, transform_specs
from raymaker.serving.transform.spec import TransformSpec

logger = logging.getLogger(__name__)

MachineKey = tuple[str, int, int]
"""A job, its attempt, and the machine's number in it."""


class TransformFleet(Protocol):
    """What transform jobs ask of the cluster."""

    def transform_machines(self) -> frozenset[MachineKey]:
        """Name every machine of a transform job that lives, placed or still waiting for its place."""

    def launch_transform(self, spec: TransformSpec) -> None:
        """Start one machine, and keep what it needs from others until it has it. One that lives is not started."""

    def stop_transform(self, key: MachineKey) -> None:
        """Ask a machine to stop. Never blocks."""


class TransformReconciler:
    """Steps over all unfinished transform jobs."""

    def __init__(self, database: Database, fleet: TransformFleet, catalogue: Mapping[str, InstanceType]) -> None:
        self._database = database
        self._fleet = fleet
        self._catalogue = catalogue

    def step(self, now: float) -> list[Queued]:
        """Follow what was started, and return what waits for room."""
        jobs = transforms.unfinished_transform_jobs(self._database)
        started = [job for job in jobs if job.attempt > 0]
        alive = self._fleet.transform_machines() if started else frozenset()
        for job in started:
            try:
                self._follow(job, alive)
            except Exception:
                logger.exception("could not move transform job %s; the next step tries again", job.name)
        return [self._queued(job, now) for job in jobs if job.attempt == 0]

    def _follow(self, job: TransformJobRecord, alive: frozenset[MachineKey]) -> None:
        """See that every machine that has not ended is there, and that all hear of a stop."""
        for spec, machine in zip(transform_specs(job, self._catalogue), job.machines, strict=True):
            self._follow_machine(job, spec, machine, alive)

    def _follow_machine(
        self, job: TransformJobRecord, spec: TransformSpec, machine: MachineState, alive: frozenset[MachineKey]
    ) -> None:
        key = (job.name, job.attempt, spec.machine_index)
        if machine.outcome is not None:
            return
        if key not in alive:
            self._fleet.launch_transform(spec)
        elif job.status is TransformJobStatus.STOPPING:
            self._fleet.stop_transform(key)

    def _queued(self, job: TransformJobRecord, now: float) -> Queued:
        def place(room: Room) -> None:
            count = job.request["TransformResources"]["InstanceCount"]
            what = f"{count} instances" if count > 1 else "an instance"
            type_name = job.request["TransformResources"]["InstanceType"]
            reason = room.take(job.name, resources_needed(job, self._catalogue), f"{what} of {type_name}")
            if reason is not None:
                transforms.mark_pending(self._database, job.name, reason, now)
                return
            for spec in transform_specs(transforms.start_attempt(self._database, job.name, now), self._catalogue):
                self._fleet.launch_transform(spec)

        return Queued(job.created_at, f"transform job {job.name}", place)
