"""The reconciler's `Fleet`, on Ray: machines and gangs are named detached actors, endpoints are Serve applications."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.util import list_named_actors

from raymaker.actors.gang_room import AbandonedRooms
from raymaker.actors.spec import Resources, TrainingSpec
from raymaker.platform.capacity import add, resources_needed, subtract
from raymaker.platform.cluster.evaluators import end_evaluator, evaluate, evaluators, rest_evaluator
from raymaker.platform.cluster.growth import Growth
from raymaker.platform.cluster.machines import Machines
from raymaker.platform.cluster.reporter import ControlReporter
from raymaker.platform.cluster.site import site_of
from raymaker.platform.cluster.transforms import launch_transform, stop_transform, transform_machines
from raymaker.platform.cluster.waiting_gangs import CONCURRENCY, WaitingGangs
from raymaker.platform.cluster.workers import detached, find_actor
from raymaker.platform.evaluating.evaluators import EvaluatorKey
from raymaker.platform.pools.seen import SeenPool
from raymaker.platform.pools.sizing import Limits
from raymaker.platform.pools.warm_pool import KeptFor
from raymaker.platform.room import Queued
from raymaker.platform.settings import Settings
from raymaker.platform.transforming.reconcile_transforms import MachineKey
from raymaker.serving import endpoint as serving_endpoint
from raymaker.serving.endpoint import EndpointObservation
from raymaker.serving.evaluation.spec import EvaluationSpec
from raymaker.serving.spec import EndpointSpec
from raymaker.serving.transform.spec import TransformSpec

PREFIX = "training/"

Attempt = tuple[str, int]

logger = logging.getLogger(__name__)


class RayFleet:
    """Starts and finds what runs on the cluster. Ray's own state is asked each time.

    All it remembers is what it has launched that Ray has not placed yet, since Ray does not count that.
    """

    def __init__(self, settings: Settings, on_free: Callable[[], None] = lambda: None) -> None:
        self._site = site_of(settings)
        limits = Limits(settings.warm_min, settings.warm_max)
        self._machines = Machines(self._site, limits, on_free, only_on_head=settings.grows)
        self._gangs = WaitingGangs(self._site, settings.warm_gangs, settings.warm_gang_size)
        self._growth = Growth() if settings.grows else None
        self._abandoned = AbandonedRooms()
        self._unplaced: dict[Attempt | MachineKey | tuple[str, EvaluatorKey], tuple[ray.ObjectRef[Any], Resources]] = {}
        """What attempts need that have it not yet, each with the answer that comes once it has."""

    def supervisors(self) -> frozenset[Attempt]:
        """Name every attempt that has a supervisor."""
        gangs = frozenset(_attempt(name) for name in list_named_actors() if name.startswith(PREFIX))
        return gangs | self._gangs.attempts() | self._machines.attempts()

    @property
    def pool(self) -> SeenPool:
        """The machines as they were seen last. May be asked by any thread."""
        return self._machines.pool

    def keep_warm(self, now: float) -> None:
        """Have machines and gangs wait for jobs."""
        self._machines.keep_warm(now)
        self._gangs.keep_warm(now)

    def note_end(self, attempt: Attempt) -> None:
        """Hear, from any thread, that an attempt has reported its end."""
        self._machines.note_end(attempt)

    def keep_pools(self, pools: Mapping[str, KeptFor]) -> Mapping[str, bool]:
        """Let go of the machines of all other warm pools. Says which of these have one, and whether it is free."""
        return self._machines.keep_pools(pools)

    def sweep(self) -> None:
        """Give back the room of gangs and of single machines that are gone."""
        living = self.supervisors() | self._gangs.claimants()
        for room in [*self._abandoned.step(living), *self._machines.sweep()]:
            logger.warning("gave back placement group %s: nobody uses it any more", room)

    def free(self) -> Resources:
        """What Ray could give to new actors now, less what those that it has not placed yet will take."""
        for attempt, (answer, _) in list(self._unplaced.items()):
            if ray.wait([answer], timeout=0)[0]:
                del self._unplaced[attempt]
        available = ray.available_resources()
        free = Resources(available.get("CPU", 0.0), int(available.get("memory", 0.0)), available.get("GPU", 0.0))
        for _, needed in self._unplaced.values():
            free = subtract(free, needed)
        return add(free, self._machines.held())

    def want(self, waiting: Sequence[Queued]) -> None:
        """Have a cluster that grows do so for what waits."""
        if self._growth is not None:
            self._growth.want(waiting)

    def launch(self, spec: TrainingSpec) -> None:
        """Start a supervisor: a machine's where there is one instance, else a gang's, whose workers hold its room."""
        if spec.instance_count > 1:
            self._machines.give_room()
        placed = self._place_gang(spec) if spec.instance_count > 1 else self._machines.run(spec)
        if placed is not None:
            self._unplaced[spec.job_name, spec.attempt] = (placed, resources_needed(spec))

    def stop(self, attempt: Attempt) -> None:
        """Ask a supervisor to stop its job."""
        if (machine := self._machines.find(attempt)) is not None:
            machine.stop.remote(attempt)
        elif (gang := self._find_gang(attempt)) is not None:
            gang.stop.remote()

    def update(self, attempt: Attempt, revision: int) -> None:
        """Ask a supervisor to look at a change of its job."""
        if (machine := self._machines.find(attempt)) is not None:
            machine.update.remote(attempt, revision)
        elif (gang := self._find_gang(attempt)) is not None:
            gang.update.remote(revision)

    def transform_machines(self) -> frozenset[MachineKey]:
        """Name every machine of a transform job that lives."""
        return transform_machines()

    def launch_transform(self, spec: TransformSpec) -> None:
        """Start a machine of a transform job, which holds its resources."""
        self._machines.give_room()
        key = (spec.job_name, spec.attempt, spec.machine_index)
        self._unplaced[key] = (launch_transform(spec, self._site), spec.instance_type.resources)

    def stop_transform(self, key: MachineKey) -> None:
        """Ask a machine of a transform job to stop."""
        stop_transform(key)

    def evaluators(self) -> frozenset[EvaluatorKey]:
        """Name every evaluator that lives."""
        return evaluators()

    def evaluate(self, spec: EvaluationSpec) -> None:
        """Have a job's evaluator, which holds its resources, be at an evaluation."""
        self._machines.give_room()
        self._unplaced["evaluator", spec.evaluator] = (evaluate(spec, self._site), spec.instance_type.resources)

    def rest_evaluator(self, key: EvaluatorKey) -> None:
        """Have an evaluator be at nothing."""
        rest_evaluator(key)

    def end_evaluator(self, key: EvaluatorKey) -> None:
        """Have an evaluator end."""
        end_evaluator(key)

    def endpoints(self, names: list[str]) -> Mapping[str, EndpointObservation]:
        """Tell what each endpoint looks like from outside."""
        return serving_endpoint.observe(names)

    def deploy(self, spec: EndpointSpec, beside: Sequence[EndpointSpec], *, share: float) -> None:
        """Make an endpoint be as the spec says, with other revisions' fleets beside it."""
        serving_endpoint.deploy(spec, self._site, ControlReporter(), ControlReporter(), beside, share=share)

    def remove_endpoint(self, name: str) -> None:
        """Take an endpoint away."""
        serving_endpoint.delete(name)

    def _launch_gang(self, spec: TrainingSpec) -> ray.ObjectRef[Any]:
        """Start a gang's supervisor, where it does not live."""
        # These import Ray Train, which few control planes need.
        from raymaker.actors.gang_claims import keep_claims_here
        from raymaker.platform.cluster.gang_actor import GangActor

        keep_claims_here()
        name = actor_name(spec.job_name, spec.attempt)
        actor = detached(GangActor, name, CONCURRENCY, get_if_exists=True, max_restarts=-1)
        placed: ray.ObjectRef[Any] = actor.remote(spec, self._site).placed.options(max_task_retries=-1).remote()
        return placed

    def _place_gang(self, spec: TrainingSpec) -> ray.ObjectRef[Any]:
        """Have an attempt supervised. Returns what is answered once its gang has its instances, or has ended."""
        attempt = (spec.job_name, spec.attempt)
        if (gang := self._gangs.find(attempt)) is not None:
            there: ray.ObjectRef[Any] = gang.placed.remote()
            return there
        placed = self._gangs.run(spec) if actor_name(*attempt) not in list_named_actors() else None
        return placed if placed is not None else self._launch_gang(spec)

    def _find_gang(self, attempt: Attempt) -> Any:
        return self._gangs.find(attempt) or find_actor(actor_name(*attempt))


def actor_name(job_name: str, attempt: int) -> str:
    """Name a gang's supervisor on the cluster."""
    return f"{PREFIX}{job_name}/{attempt}"


def _attempt(name: str) -> Attempt:
    _, job_name, attempt = name.split("/")
    return job_name, int(attempt)
