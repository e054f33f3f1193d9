"""An endpoint as a Serve application: deployed, updated and taken away without waiting, and looked at from outside.

A simple endpoint's front holds the containers. Else the front is a router, and each variant a fleet behind it, in the
same application. An update brings new replicas up beside the old ones, and takes an old one away only when a new one
answers. Where the new ones fail, Serve stops the update and keeps what still runs.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.serve.schema import DeploymentStatusOverview, LoggingConfig, ServeStatus

from raymaker.actors.reports import EndpointReporter
from raymaker.actors.scoring import STOP_GRACE_S
from raymaker.actors.site import Site
from raymaker.serving.async_queue import InvocationQueue
from raymaker.serving.fleet_handle import REPLICA_WAIT_S
from raymaker.serving.kept_container import HEALTH_PERIOD_S
from raymaker.serving.proxy import DRAINING_S
from raymaker.serving.replica import ScoringReplica
from raymaker.serving.router_replica import Behind, RouterReplica
from raymaker.serving.scaling import replica_options
from raymaker.serving.spec import FRONT, EndpointSpec, VariantSpec
from raymaker.serving.variant_replica import VariantReplica
from raymaker.serving.variants import TrafficTable, traffic_between, traffic_of

APPLICATION = "endpoint-"
"""What the names of our applications begin with, so that no endpoint clashes with the platform's own."""
START_ATTEMPTS = 1
"""How often a replica may fail to start before the rollout has failed. What is worth another try, a pull or a download,
is tried again within one start; a container that does not answer in its time will not in twice that time either."""

RUNNING = frozenset({"RUNNING"})
WANTED = RUNNING | {"STARTING", "UPDATING", "RECOVERING"}
"""The states of replicas that answer, and of those that do or are to: all but those that are on their way out."""

MOST_ROUTERS = 2
"""How many replicas a router has where its endpoint has as many instances: so that one may die. Where it runs graphs
itself, it has as many as those have instances."""


class EndpointState(enum.Enum):
    """What an endpoint looks like from outside."""

    MISSING = "Missing"
    """There is no such application."""
    DEPLOYING = "Deploying"
    """The last deploy is under way; what ran before still answers."""
    HEALTHY = "Healthy"
    """All replicas of the last deploy answer, and no others run."""
    UNHEALTHY = "Unhealthy"
    """It was healthy, and a replica has failed since; Serve is replacing it."""
    FAILED = "Failed"
    """The last deploy has failed for good; what ran before still answers, where anything did."""
    DELETING = "Deleting"
    """It was deleted, and its replicas finish what they have begun."""


@dataclass(frozen=True)
class EndpointObservation:
    """One look at one endpoint. `message` is Serve's reason where something is wrong.

    `running_counts` says how many replicas of the front and of each fleet run, by name, `wanted_counts` how many shall,
    `states` how each of them is.
    """

    state: EndpointState
    running_counts: Mapping[str, int] = field(default_factory=dict)
    wanted_counts: Mapping[str, int] = field(default_factory=dict)
    message: str = ""
    states: Mapping[str, EndpointState] = field(default_factory=dict)

    @property
    def is_short(self) -> bool:
        """Whether some replicas that shall run do not, for want of room perhaps."""
        return any(self.running_counts.get(name, 0) < count for name, count in self.wanted_counts.items())


STATES = {
    "NOT_STARTED": EndpointState.DEPLOYING,
    "DEPLOYING": EndpointState.DEPLOYING,
    "RUNNING": EndpointState.HEALTHY,
    "UNHEALTHY": EndpointState.UNHEALTHY,
    "DEPLOY_FAILED": EndpointState.FAILED,
    "DELETING": EndpointState.DELETING,
}
FLEET_STATES = {
    "UPDATING": EndpointState.DEPLOYING,
    "UNHEALTHY": EndpointState.UNHEALTHY,
    "DEPLOY_FAILED": EndpointState.FAILED,
}
"""The states of deployments but of those all of whose replicas are as they were last deployed, few or many."""


def deploy(
    spec: EndpointSpec,
    site: Site,
    reporter: EndpointReporter,
    queue: InvocationQueue,
    beside: Sequence[EndpointSpec] = (),
    *,
    share: float = 1.0,
) -> None:
    """Make the endpoint be as `spec` says. Returns once Serve has taken it, before it is so.

    What is of a revision that runs already goes on as it is: only weights and counts change. `beside` are other
    revisions whose fleets are to exist too: what `share` leaves of the traffic goes to the first of them. Afterwards
    `observe` says DEPLOYING until it has succeeded or failed. Raises RuntimeError where Serve is not running.
    """
    _require_serve()
    fleets: dict[str, Any] = {}
    apart: dict[str, Any] = {}
    for each in (spec, *beside):
        for variant in each.fleets:
            replica = _with_container(VariantReplica, each, variant)
            parts = _parts_of(each, variant, fleets)
            fleets[each.fleet_name(variant)] = replica.bind(each.only(variant), site, reporter, parts)
        apart |= {each.fleet_name(variant): (variant, _parts_of(each, variant, fleets)) for variant in each.apart}
    if spec.is_simple:
        front = _with_container(ScoringReplica, spec, spec.variants[0]).bind(spec, site, reporter, queue, fleets)
    else:
        table = traffic_of(spec) if share >= 1 else traffic_between(spec, beside[0], share)
        front = _router_front(spec, table).bind(spec, site, reporter, queue, Behind(fleets, apart))
    target = serve.RunTarget(
        front, name=APPLICATION + spec.endpoint_name, route_prefix=f"/endpoints/{spec.endpoint_name}"
    )
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def observe(names: Iterable[str]) -> dict[str, EndpointObservation]:
    """Look at endpoints, all at once. Raises RuntimeError where Serve is not running: then nothing is known."""
    status = _require_serve()
    found: dict[str, EndpointObservation] = {}
    for name in names:
        application = status.applications.get(APPLICATION + name)
        if application is None:
            found[name] = EndpointObservation(EndpointState.MISSING)
            continue
        deployments = application.deployments
        found[name] = EndpointObservation(
            STATES[application.status.value],
            {fleet: _count(seen, RUNNING) for fleet, seen in deployments.items()},
            {fleet: _count(seen, WANTED) for fleet, seen in deployments.items()},
            "\n".join(filter(None, [application.message, *(seen.message for seen in deployments.values())])),
            {fleet: FLEET_STATES.get(seen.status.value, EndpointState.HEALTHY) for fleet, seen in deployments.items()},
        )
    return found


def delete(name: str) -> None:
    """Take the endpoint away. Returns at once; what it is answering, it still answers. Missing is no error."""
    if APPLICATION + name in _require_serve().applications:
        serve.delete(APPLICATION + name, _blocking=False)


def _require_serve() -> ServeStatus:
    """Look at Serve, which has a proxy as soon as it was started: deploying without would start it at 0.0.0.0."""
    status = serve.status()
    if not status.proxies:
        raise RuntimeError("Ray Serve is not running on this cluster: `raymaker up` starts it")
    return status


def _count(deployment: DeploymentStatusOverview, states: Collection[str]) -> int:
    return sum(count for state, count in deployment.replica_states.items() if state in states)


def _parts_of(spec: EndpointSpec, variant: VariantSpec, fleets: Mapping[str, Any]) -> dict[str, Any]:
    return {hostname: fleets[spec.fleet_name(part)] for hostname, part in variant.parts.items()}


def _with_container(replica: type, spec: EndpointSpec, variant: VariantSpec) -> serve.Deployment:
    """The replicas of a variant: a fleet behind a router, or the front of a simple endpoint."""
    resources = variant.resources
    return _deployment(
        replica,
        spec.fleet_name(variant),
        str(spec.revision),
        **replica_options(variant.replica_count, variant.scaling),
        ray_actor_options={
            "num_cpus": resources.cpus,
            "num_gpus": math.floor(resources.gpus) if resources.gpus > 1 else resources.gpus,  # as Ray counts them
            **({"memory": resources.memory_bytes} if resources.memory_bytes else {}),
        },
        max_ongoing_requests=2 * variant.max_pending_requests,  # the replica refuses what is too much, on our wire
        max_queued_requests=variant.max_pending_requests,
        graceful_shutdown_timeout_s=DRAINING_S + variant.scoring.invocation_timeout_s + STOP_GRACE_S + 10,
    )


def _router_front(spec: EndpointSpec, table: TrafficTable) -> serve.Deployment:
    """The front of an endpoint with something to choose from. It reserves nothing: machines are for containers.

    Each step of a rollout has new replicas: taking a table in, the old ones would answer nobody for a moment.
    """
    instance_count = sum(variant.most_count for variant in spec.variants)
    most_count = max(MOST_ROUTERS, sum(variant.replica_count for variant in spec.apart))
    longest_s = max(variant.scoring.invocation_timeout_s for variant in spec.variants)
    return _deployment(
        RouterReplica,
        FRONT,
        f"router-{spec.revision}" if spec.step is None else f"router-{spec.revision}-{spec.step}",
        num_replicas=min(most_count, instance_count),
        user_config=table.as_config(),
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=2 * spec.max_pending_requests,
        max_queued_requests=spec.max_pending_requests,
        graceful_shutdown_timeout_s=DRAINING_S + longest_s + REPLICA_WAIT_S + 10,
    )


def _deployment(replica: type, name: str, version: str, **options: Any) -> serve.Deployment:
    """A Serve deployment with what all of ours share. Replicas of the same version are kept."""
    made = serve.deployment(
        name=name,
        max_constructor_retry_count=START_ATTEMPTS,
        max_surge_percent=100,
        rolling_update_percentage=1.0,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=5 * HEALTH_PERIOD_S,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),  # a line per request costs 8 %
        **options,
    )(replica)
    return made.options(version=version, _internal=True)  # else each deploy would make all replicas anew
