"""Transform jobs in the reconciler's loop: those that were started are followed, the others wait for room.

Knows no Ray: what it asks of the cluster is the `TransformFleet` protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from raymaker.actors.spec import InstanceType
from raymaker.platform.database import transforms
from raymaker.platform.database.engine import Database
from raymaker.platform.placing import Derived, Line, logged
from raymaker.platform.room import END_S, Holding, Queued
from raymaker.platform.transforming.transform_jobs import MachineState, TransformJobRecord, TransformJobStatus
from raymaker.platform.transforming.transform_specs import (
    instances_needed,
    max_runtime_s,
    resources_needed,
    transform_specs,
)
from raymaker.serving.transform.spec import TransformSpec

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
        self._jobs: dict[str, TransformJobRecord] = {}
        """The jobs that had not ended, as they were read last."""
        self._queued = Derived(self._queue)
        self._held = Derived(self._hold)

    def step(self) -> Line:
        """Follow what was started, and return what waits for room and what is held."""
        jobs = transforms.unfinished_transform_jobs(self._database, self._jobs)
        self._jobs = {job.name: job for job in jobs}
        started = [job for job in jobs if job.attempt > 0]
        alive = self._fleet.transform_machines() if started else frozenset()
        for job in started:
            with logged(_label(job)):
                self._follow(job, alive)
        return Line(self._queued.of(job for job in jobs if job.attempt == 0), dict(self._held.of(started)))

    def _follow(self, job: TransformJobRecord, alive: frozenset[MachineKey]) -> None:
        """See that every machine that has not ended is there, and that all hear of a stop."""
        at_work = [index for index, machine in enumerate(job.machines) if machine.outcome is None]
        if any((job.name, job.attempt, index) not in alive for index in at_work):  # it may have ended since, and gone
            with self._database.reading() as connection:
                found = transforms.find_transform_job(connection, job.name)
            if found is None or found.status.ended or found.attempt != job.attempt:
                return
            job = found
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

    def _queue(self, job: TransformJobRecord) -> Queued:
        """Put a job in line."""
        name, resources = job.name, job.request["TransformResources"]
        each, count = instances_needed(job, self._catalogue)
        what = f"{f'{count} instances' if count > 1 else 'an instance'} of {resources['InstanceType']}"

        def start(now: float) -> None:
            for spec in transform_specs(transforms.start_attempt(self._database, name, now), self._catalogue):
                self._fleet.launch_transform(spec)

        return Queued(
            account=job.account,
            created_at=job.created_at,
            name=_label(job),
            each=each,
            count=count,
            what=what,
            limit_s=max_runtime_s(job.request) + END_S,
            told=job.message if what in job.message else None,
            start=start,
            tell=lambda connection, reason, now: transforms.mark_pending(connection, name, reason, now),
        )

    def _hold(self, job: TransformJobRecord) -> tuple[str, Holding]:
        """What a job holds that was started."""
        began_at = job.started_at if job.started_at is not None else job.modified_at
        held = resources_needed(job, self._catalogue)
        return _label(job), Holding(job.account, held, began_at + max_runtime_s(job.request) + END_S)


def _label(job: TransformJobRecord) -> str:
    """Name a job among jobs of other kinds."""
    return f"transform job {job.name}"
