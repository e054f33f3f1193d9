"""An endpoint as a Serve application: deployed, updated and taken away without waiting, and looked at from outside.

An update brings the new replicas up beside the old ones, and takes an old one away only when a new one answers. Where
the new ones fail, Serve stops the update and keeps what still runs; deploying the old spec again then rolls back.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from ray import serve
from ray.serve.schema import LoggingConfig, ServeStatus

from raymaker.actors.reports import EndpointReporter
from raymaker.actors.scoring import STOP_GRACE_S
from raymaker.actors.site import Site
from raymaker.serving.proxy import DRAINING_S
from raymaker.serving.replica import HEALTH_PERIOD_S, ScoringReplica
from raymaker.serving.spec import EndpointSpec

APPLICATION = "endpoint-"
"""What the names of our applications begin with, so that no endpoint clashes with the platform's own."""
START_ATTEMPTS = 1
"""How often a replica may fail to start before the rollout has failed. What is worth another try, a pull or a download,
is tried again within one start; a container that does not answer in its time will not in twice that time either."""


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
    """One look at one endpoint. `message` is Serve's reason where something is wrong."""

    state: EndpointState
    running_replicas: int = 0
    message: str = ""


STATES = {
    "NOT_STARTED": EndpointState.DEPLOYING,
    "DEPLOYING": EndpointState.DEPLOYING,
    "RUNNING": EndpointState.HEALTHY,
    "UNHEALTHY": EndpointState.UNHEALTHY,
    "DEPLOY_FAILED": EndpointState.FAILED,
    "DELETING": EndpointState.DELETING,
}


def deploy(spec: EndpointSpec, site: Site, reporter: EndpointReporter) -> None:
    """Make the endpoint be as `spec` says. Returns once Serve has taken it, before it is so.

    Each call is a rollout: also the same spec again. Afterwards `observe` says DEPLOYING until it has succeeded or
    failed. Raises RuntimeError where Serve is not running.
    """
    _require_serve()
    resources = spec.instance_type.resources
    deployment = serve.deployment(
        name=spec.variant_name,
        num_replicas=spec.replica_count,
        ray_actor_options={
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            **({"memory": resources.memory_bytes} if resources.memory_bytes else {}),
        },
        max_ongoing_requests=2 * spec.max_pending_requests,  # the replica itself refuses what is too much, on our wire
        max_queued_requests=spec.max_pending_requests,
        max_constructor_retry_count=START_ATTEMPTS,
        max_surge_percent=100,
        rolling_update_percentage=1.0,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=5 * HEALTH_PERIOD_S,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=DRAINING_S + spec.scoring.invocation_timeout_s + STOP_GRACE_S + 10,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),  # a line per request costs 8 %
    )(ScoringReplica)
    target = serve.RunTarget(
        deployment.bind(spec, site, reporter),
        name=APPLICATION + spec.endpoint_name,
        route_prefix=f"/endpoints/{spec.endpoint_name}",
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
        deployments = application.deployments.values()
        found[name] = EndpointObservation(
            STATES[application.status.value],
            sum(count for seen in deployments for state, count in seen.replica_states.items() if state == "RUNNING"),
            "\n".join(filter(None, [application.message, *(seen.message for seen in deployments)])),
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
