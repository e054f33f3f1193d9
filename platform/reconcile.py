"""The loop that makes the cluster follow the records: observe, decide, act, write. This is where a job starts.

Level-triggered: each step looks at everything unfinished anew, so nothing is lost when a step, or this process, dies.
Knows no Ray: what it asks of the cluster is the `Fleet` protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from raymaker.actors.errors import WorkError
from raymaker.actors.spec import InstanceType, Resources, TrainingSpec
from raymaker.platform import specs
from raymaker.platform.capacity import multiply
from raymaker.platform.comparing.algorithms import is_comparison
from raymaker.platform.comparing.reconcile_comparisons import follow_comparisons
from raymaker.platform.database import events, hosting, training, updates
from raymaker.platform.database.engine import Database
from raymaker.platform.evaluating.evaluators import EvaluatorFleet
from raymaker.platform.evaluating.reconcile_evaluations import EvaluationReconciler
from raymaker.platform.evaluating.watch import CheckpointWatch
from raymaker.platform.hosting import rollout
from raymaker.platform.hosting.reconcile_rollouts import RolloutReconciler
from raymaker.platform.hosting.reconcile_sleep import SleepReconciler
from raymaker.platform.placing import Derived, Line, Placing, logged
from raymaker.platform.pools.reconcile_pools import PoolFleet, PoolReconciler
from raymaker.platform.records import (
    Deployment,
    EndpointRecord,
    EndpointStatus,
    RolloutStage,
    SecondaryStatus,
    SleepStage,
    TrainingJobRecord,
    TrainingJobStatus,
)
from raymaker.platform.room import END_S, Holding, Queued
from raymaker.platform.settings import Settings
from raymaker.platform.transforming.reconcile_transforms import TransformFleet, TransformReconciler
from raymaker.serving.endpoint import EndpointObservation, EndpointState
from raymaker.serving.spec import FRONT, EndpointSpec

logger = logging.getLogger(__name__)

Attempt = tuple[str, int]


class Fleet(TransformFleet, EvaluatorFleet, PoolFleet, Protocol):
    """What the reconciler asks of the cluster."""

    def supervisors(self) -> frozenset[Attempt]:
        """Name every attempt that has a supervisor, placed or still waiting for its place."""

    def free(self) -> Resources:
        """What the cluster could give to new jobs now, summed over its nodes."""

    def want(self, waiting: Sequence[Queued]) -> None:
        """Hear of what waits for room, the most urgent first: a cluster that grows is to have it."""

    def launch(self, spec: TrainingSpec) -> None:
        """Start a supervisor for an attempt, and keep what the attempt needs from others until it has it.

        Launching one that lives starts nothing.
        """

    def stop(self, attempt: Attempt) -> None:
        """Ask an attempt's supervisor to stop its job. Never blocks."""

    def update(self, attempt: Attempt, revision: int) -> None:
        """Ask an attempt's supervisor to look at a change of its job. Never blocks."""

    def endpoints(self, names: list[str]) -> Mapping[str, EndpointObservation]:
        """Tell what each of these endpoints looks like from outside."""

    def deploy(self, spec: EndpointSpec, beside: Sequence[EndpointSpec], *, share: float) -> None:
        """Make an endpoint be as the spec says, with other revisions' fleets beside it. Returns before it is.

        `share` is what its own fleets get of the traffic; the first of the others gets the rest.
        """

    def remove_endpoint(self, name: str) -> None:
        """Take an endpoint away. Returns before it is gone."""


class Reconciler:
    """Steps over all unfinished records. One step at a time, by one process."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        settings: Settings,
        catalogue: Mapping[str, InstanceType],
        watch: CheckpointWatch,
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._settings = settings
        self._catalogue = catalogue
        self._transforms = TransformReconciler(database, fleet, catalogue)
        self._evaluations = EvaluationReconciler(database, fleet, catalogue, watch, settings.evaluator_keep_s)
        self._sleep = SleepReconciler(database, fleet, settings.resting_endpoints)
        self._pools = PoolReconciler(database, fleet, settings, catalogue)
        self._rollouts = RolloutReconciler(database)
        self._deployed: dict[str, tuple[int, RolloutStage | None, int | None]] = {}
        """What this process last deployed, so that an unchanged endpoint is not deployed at every step."""
        self._launched: set[Attempt] = set()
        """The attempts that this process has launched: the fleet knows what those need."""
        self._jobs: dict[str, TrainingJobRecord] = {}
        """The jobs that had not ended, as they were read last."""
        self._queued = Derived(self._queue)
        self._held = Derived(self._hold)
        self._placing = Placing(database, fleet)
        self._is_awaited = False
        """Whether somebody waits for an endpoint."""

    @property
    def is_hurried(self) -> bool:
        """Whether the next step should come soon: somebody waits for an endpoint, or for room that is to appear."""
        return self._is_awaited or self._placing.is_expecting or self._evaluations.are_making_way

    def step(self, now: float) -> None:
        """Look once at every unfinished job and endpoint. One that fails does not keep the others from their turn."""
        unfinished = training.unfinished_training_jobs(self._database, self._jobs)
        self._jobs = {job.name: job for job in unfinished}
        jobs = [job for job in unfinished if not is_comparison(job.request)]
        jobs = self._pools.step(jobs, now)
        follow_comparisons(self._database, [job for job in unfinished if is_comparison(job.request)], now)
        lines = [self._step_jobs(jobs, now), self._transforms.step()]
        holdings = self._evaluations.step(jobs, now) | self._pools.holdings()
        holdings |= {name: held for line in lines for name, held in line.holdings.items()}
        waiting = [job for line in lines for job in line.waiting]
        self._placing.step(waiting, holdings, now, self._evaluations)  # which take no job's place
        self._step_endpoints(now)

    def _step_jobs(self, jobs: list[TrainingJobRecord], now: float) -> Line:
        """Follow the training jobs that were started, and return what waits for room and what is held."""
        started = [job for job in jobs if not job.is_waiting]
        self._launched &= {(job.name, job.attempt) for job in started}
        alive = self._fleet.supervisors() if started else frozenset()
        for job in started:
            with logged(_label(job)):
                self._follow(job, alive)
                updates.measure(self._database, job, now)
        return Line(self._queued.of(job for job in jobs if job.is_waiting), dict(self._held.of(started)))

    def _follow(self, job: TrainingJobRecord, alive: frozenset[Attempt]) -> None:
        """See that a job that was started has its supervisor, and that this hears of a stop and of changes.

        A gang that an earlier process launched is launched again: it may still be waiting for its machines, and what it
        waits for must not go to another job.
        """
        attempt = (job.name, job.attempt)
        if attempt in alive and job.status is TrainingJobStatus.STOPPING:
            self._fleet.stop(attempt)
        if attempt in alive and job.open_update is not None:
            self._fleet.update(attempt, job.open_update.revision)
        if attempt not in alive:
            if training.is_current(self._database, *attempt):  # else it ended after its record was read, and went
                self._launch(job)
        elif attempt not in self._launched and self._spec(job).instance_count > 1:
            self._launch(job)

    def _queue(self, job: TrainingJobRecord) -> Queued:
        """Put a job in line."""
        spec, name = self._spec(job), job.name
        what = f"{_instances(spec)} of {spec.instance_type.name}"
        return Queued(
            account=job.account,
            created_at=job.created_at,
            name=_label(job),
            each=spec.instance_type.resources,
            count=spec.min_instance_count or spec.instance_count,
            what=what,
            limit_s=spec.max_runtime_s + END_S,
            told=job.message if job.secondary is SecondaryStatus.PENDING and what in job.message else None,
            start=lambda now: self._launch(training.start_attempt(self._database, name, now)),
            tell=lambda connection, reason, now: training.mark_pending(connection, name, reason, now),
        )

    def _hold(self, job: TrainingJobRecord) -> tuple[str, Holding]:
        """What a job may hold that was started: an elastic one the most."""
        spec = self._spec(job)
        held = multiply(spec.instance_type.resources, spec.instance_count)
        began_at = job.started_at if job.started_at is not None else job.modified_at
        return _label(job), Holding(job.account, held, began_at + spec.max_runtime_s + END_S)

    def _launch(self, job: TrainingJobRecord) -> None:
        self._fleet.launch(self._spec(job))
        self._launched.add((job.name, job.attempt))

    def _spec(self, job: TrainingJobRecord) -> TrainingSpec:
        return specs.training_spec(job, self._catalogue, self._settings)

    def _step_endpoints(self, now: float) -> None:
        endpoints = hosting.active_endpoints(self._database)
        self._is_awaited = any(endpoint.sleep is not None for endpoint in endpoints)
        seen = self._fleet.endpoints([endpoint.name for endpoint in endpoints]) if endpoints else {}
        are_short = any(it.is_short for it in seen.values())
        self._evaluations.is_room_wanted = are_short
        self._sleep.hear_of_room(now, jobs_wait=self._placing.is_short, endpoints_lack=are_short)
        self._sleep.forget(seen)
        for endpoint in endpoints:
            try:
                self._step_endpoint(endpoint, seen[endpoint.name], now)
            except Exception:
                logger.exception("could not move endpoint %s; the next step tries again", endpoint.name)

    def _step_endpoint(self, endpoint: EndpointRecord, seen: EndpointObservation, now: float) -> None:
        name = endpoint.name
        if endpoint.status is EndpointStatus.DELETING:
            self._remove(endpoint, seen)
        elif endpoint.status is EndpointStatus.FAILED:
            if seen.state is not EndpointState.MISSING:  # nothing half-made stays
                self._fleet.remove_endpoint(name)
        elif self._sleep.take_away(endpoint, seen):
            self._deployed.pop(name, None)
        elif seen.state is EndpointState.DELETING:
            return
        elif seen.state is EndpointState.MISSING or not self._is_deployed(endpoint, seen):
            self._deploy(endpoint, now)
        else:
            self._judge(endpoint, self._staying(endpoint, seen, now), now)

    def _judge(self, endpoint: EndpointRecord, seen: EndpointObservation, now: float) -> None:
        """Bring an endpoint further, or back, by how what was deployed last turned out."""
        if (reason := self._trouble(endpoint, seen, now)) is not None:
            self._fail(endpoint, reason, now)
        elif seen.state is EndpointState.HEALTHY and not self._rollouts.go_on(endpoint, now):
            self._be_healthy(endpoint, seen, now)

    def _is_deployed(self, endpoint: EndpointRecord, seen: EndpointObservation) -> bool:
        """Tell whether the generation was deployed; one that is in service was, by an earlier process perhaps.

        That process may not have come to taking away what an update left over.
        """
        if endpoint.name not in self._deployed and endpoint.status is EndpointStatus.IN_SERVICE:
            spec = self._endpoint_spec(endpoint, endpoint.desired)
            if set(seen.running_counts) <= {FRONT, *map(spec.fleet_name, spec.fleets)}:
                self._deployed[endpoint.name] = _progress(endpoint)
        return self._deployed.get(endpoint.name) == _progress(endpoint)

    def _deploy(self, endpoint: EndpointRecord, now: float) -> None:
        front, beside = rollout.deployments_of(endpoint)
        try:
            others = [self._endpoint_spec(endpoint, other) for other in beside]
            share = rollout.current_share(endpoint)
            self._fleet.deploy(self._endpoint_spec(endpoint, front), others, share=share)
        except WorkError as error:
            self._fail(endpoint, str(error), now)
        else:
            self._deployed[endpoint.name] = _progress(endpoint)

    def _trouble(self, endpoint: EndpointRecord, seen: EndpointObservation, now: float) -> str | None:
        """Say why what was deployed last must be undone, None where nothing is wrong."""
        if seen.state is EndpointState.FAILED:
            return events.last_replica_failure(self._database, endpoint.arn, endpoint.generation) or seen.message
        if endpoint.status is not EndpointStatus.UPDATING:
            return None
        return self._rollouts.trouble(endpoint, self._endpoint_spec(endpoint, endpoint.desired), seen, now)

    def _staying(self, endpoint: EndpointRecord, seen: EndpointObservation, now: float) -> EndpointObservation:
        """An observation without those fleets that are about to go since they failed: they may never be healthy."""
        if endpoint.stage is not RolloutStage.RETURNING or endpoint.deployed is None:
            return seen
        spec = self._endpoint_spec(endpoint, endpoint.deployed)
        return self._rollouts.only({FRONT, *map(spec.fleet_name, spec.fleets)}, endpoint, seen, now)

    def _fail(self, endpoint: EndpointRecord, reason: str, now: float) -> None:
        """Note that an endpoint's last deploy has failed, with the reason."""
        if endpoint.sleep is SleepStage.WAKING:
            self._sleep.give_up(endpoint, reason)
        hosting.endpoint_failed(self._database, endpoint.name, endpoint.generation, reason, now)

    def _be_healthy(self, endpoint: EndpointRecord, seen: EndpointObservation, now: float) -> None:
        """Note that an endpoint answers and on how many instances, or have it fall asleep where nobody asks it."""
        spec = self._endpoint_spec(endpoint, endpoint.desired)
        is_at_rest = endpoint.status is EndpointStatus.IN_SERVICE and endpoint.sleep is None
        if (
            is_at_rest
            and spec.idle_s is not None
            and self._sleep.lay_down(endpoint, seen, spec.idle_s, now, may_rest=spec.is_simple)
        ):
            self._is_awaited = True
            return
        fleets = {variant.name: spec.instances_of(variant) for variant in (*spec.variants, *spec.shadows)}
        running, wanted = (
            {name: min(counts.get(fleet, 0) for fleet in each) for name, each in fleets.items()}
            for counts in (seen.running_counts, seen.wanted_counts)
        )
        hosting.endpoint_healthy(self._database, endpoint.name, endpoint.generation, running, now, wanted_counts=wanted)

    def _endpoint_spec(self, endpoint: EndpointRecord, deployment: Deployment) -> EndpointSpec:
        return specs.endpoint_spec(endpoint, deployment, self._catalogue, self._settings)

    def _remove(self, endpoint: EndpointRecord, seen: EndpointObservation) -> None:
        if seen.state is EndpointState.MISSING:
            hosting.endpoint_gone(self._database, endpoint.name)
            self._deployed.pop(endpoint.name, None)
        else:
            self._fleet.remove_endpoint(endpoint.name)


def _progress(endpoint: EndpointRecord) -> tuple[int, RolloutStage | None, int | None]:
    """All of a record that what is deployed depends on."""
    return endpoint.generation, endpoint.stage, rollout.front_step(endpoint)


def _instances(spec: TrainingSpec) -> str:
    """Say what a job waits for."""
    if spec.min_instance_count is not None:
        return f"at least {spec.min_instance_count} instance(s)"
    return f"{spec.instance_count} instances" if spec.instance_count > 1 else "an instance"


def _label(job: TrainingJobRecord) -> str:
    """Name a job among jobs of other kinds."""
    return f"training job {job.name}"
