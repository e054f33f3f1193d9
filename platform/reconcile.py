"""The loop that makes the cluster follow the records: observe, decide, act, write. This is where a job starts.

Level-triggered: each step looks at everything unfinished anew, so nothing is lost when a step, or this process, dies.
Knows no Ray: what it asks of the cluster is the `Fleet` protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from raymaker.actors.errors import WorkError
from raymaker.actors.spec import InstanceType, Resources, TrainingSpec
from raymaker.platform import specs
from raymaker.platform.database import events, hosting, training
from raymaker.platform.database.engine import Database
from raymaker.platform.records import EndpointRecord, EndpointStatus, TrainingJobRecord, TrainingJobStatus
from raymaker.platform.settings import Settings
from raymaker.serving.endpoint import EndpointObservation, EndpointState
from raymaker.serving.spec import EndpointSpec

logger = logging.getLogger(__name__)

Attempt = tuple[str, int]


class Fleet(Protocol):
    """What the reconciler asks of the cluster."""

    def supervisors(self) -> frozenset[Attempt]:
        """Name every attempt that has a supervisor, placed or still waiting for its place."""

    def free(self) -> Resources:
        """What the cluster could give to new jobs now, summed over its nodes."""

    def launch(self, spec: TrainingSpec) -> None:
        """Start a supervisor for an attempt. Launching one that lives does nothing."""

    def stop(self, attempt: Attempt) -> None:
        """Ask an attempt's supervisor to stop its job. Never blocks."""

    def endpoints(self, names: list[str]) -> Mapping[str, EndpointObservation]:
        """Tell what each of these endpoints looks like from outside."""

    def deploy(self, spec: EndpointSpec) -> None:
        """Make an endpoint be as the spec says. Returns before it is."""

    def remove_endpoint(self, name: str) -> None:
        """Take an endpoint away. Returns before it is gone."""


class Reconciler:
    """Steps over all unfinished records. One step at a time, by one process."""

    def __init__(
        self, database: Database, fleet: Fleet, settings: Settings, catalogue: Mapping[str, InstanceType]
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._settings = settings
        self._catalogue = catalogue
        self._deployed: dict[str, int] = {}
        """The generation last deployed by this process, so that an unchanged endpoint is not deployed at every step."""

    def step(self, now: float) -> None:
        """Look once at every unfinished job and endpoint. One that fails does not keep the others from their turn."""
        self._step_jobs(now)
        self._step_endpoints(now)

    def _step_jobs(self, now: float) -> None:
        jobs = training.unfinished_training_jobs(self._database)
        if not jobs:
            return
        alive = self._fleet.supervisors()
        free = self._fleet.free()
        waiting: list[str] = []
        for job in jobs:
            try:
                if (job.name, job.attempt) in alive:
                    self._follow(job)
                elif job.attempt > 0:
                    self._fleet.launch(self._spec(job))
                elif job.status is TrainingJobStatus.IN_PROGRESS:
                    free = self._place(job, free, waiting, now)
            except Exception:
                logger.exception("could not move training job %s; the next step tries again", job.name)

    def _follow(self, job: TrainingJobRecord) -> None:
        if job.status is TrainingJobStatus.STOPPING:
            self._fleet.stop((job.name, job.attempt))

    def _place(self, job: TrainingJobRecord, free: Resources, waiting: list[str], now: float) -> Resources:
        """Start a queued job where there is room, else tell why it waits. Returns what is then left.

        A job that waits keeps what it needs from later ones: they start only with what it does not use, so that a
        stream of small jobs never starves a large one.
        """
        spec = self._spec(job)
        needed = spec.instance_type.resources
        left = subtract(free, needed)
        if missing := shortage(left):
            reason = f"Waiting for an instance of {spec.instance_type.name}: {missing} short of what is free"
            if waiting:
                reason += f", behind {len(waiting)} other job(s), first {waiting[0]}"
            training.mark_pending(self._database, job.name, reason, now)
            waiting.append(job.name)
        else:
            started = training.start_attempt(self._database, job.name, now)
            self._fleet.launch(self._spec(started))
        return left

    def _spec(self, job: TrainingJobRecord) -> TrainingSpec:
        return specs.training_spec(job, self._catalogue, self._settings)

    def _step_endpoints(self, now: float) -> None:
        endpoints = hosting.active_endpoints(self._database)
        if not endpoints:
            return
        seen = self._fleet.endpoints([endpoint.name for endpoint in endpoints])
        for endpoint in endpoints:
            try:
                self._step_endpoint(endpoint, seen[endpoint.name], now)
            except Exception:
                logger.exception("could not move endpoint %s; the next step tries again", endpoint.name)

    def _step_endpoint(self, endpoint: EndpointRecord, seen: EndpointObservation, now: float) -> None:
        name, generation = endpoint.name, endpoint.generation
        if endpoint.status is EndpointStatus.DELETING:
            self._remove(endpoint, seen)
        elif endpoint.status is EndpointStatus.FAILED:
            if seen.state is not EndpointState.MISSING:  # nothing half-made stays
                self._fleet.remove_endpoint(name)
        elif seen.state is EndpointState.DELETING:
            return
        elif seen.state is EndpointState.MISSING or not self._is_deployed(endpoint):
            self._deploy(endpoint, now)
        elif seen.state is EndpointState.HEALTHY:
            hosting.endpoint_healthy(self._database, name, generation, seen.running_replicas, now)
        elif seen.state is EndpointState.FAILED:
            reason = events.last_replica_failure(self._database, endpoint.arn, generation) or seen.message
            hosting.endpoint_failed(self._database, name, generation, reason, now)

    def _is_deployed(self, endpoint: EndpointRecord) -> bool:
        """Tell whether the generation was deployed; one that is in service was, by an earlier process perhaps."""
        if endpoint.name not in self._deployed and endpoint.status is EndpointStatus.IN_SERVICE:
            self._deployed[endpoint.name] = endpoint.generation
        return self._deployed.get(endpoint.name) == endpoint.generation

    def _deploy(self, endpoint: EndpointRecord, now: float) -> None:
        try:
            self._fleet.deploy(specs.endpoint_spec(endpoint, self._catalogue, self._settings))
        except WorkError as error:
            hosting.endpoint_failed(self._database, endpoint.name, endpoint.generation, str(error), now)
        else:
            self._deployed[endpoint.name] = endpoint.generation

    def _remove(self, endpoint: EndpointRecord, seen: EndpointObservation) -> None:
        if seen.state is EndpointState.MISSING:
            hosting.endpoint_gone(self._database, endpoint.name)
            self._deployed.pop(endpoint.name, None)
        else:
            self._fleet.remove_endpoint(endpoint.name)


def subtract(free: Resources, needed: Resources) -> Resources:
    """Return what is left; below zero where there was not enough."""
    return Resources(free.cpus - needed.cpus, free.memory_bytes - needed.memory_bytes, free.gpus - needed.gpus)


def shortage(left: Resources) -> str:
    """Say in words what is below zero, '' where nothing is."""
    parts = []
    if left.cpus < 0:
        parts.append(f"{-left.cpus:g} CPUs")
    if left.memory_bytes < 0:
        parts.append(f"{-left.memory_bytes / 2**30:.1f} GiB of memory")
    if left.gpus < 0:
        parts.append(f"{-left.gpus:g} GPUs")
    return ", ".join(parts)
