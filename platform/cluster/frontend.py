"""The frontend as a Serve application: the API's own replica at `/`, beside every endpoint's at `/endpoints/<name>`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError

from raymaker.actors.spec import InstanceType, Resources
from raymaker.platform.app import create_app
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.cluster.node_standbys import JANITOR
from raymaker.platform.cluster.nodes import HEAD_RESOURCE, living_nodes
from raymaker.platform.cluster.reporter import CONTROL_NAME, NAMESPACE
from raymaker.platform.cluster.workers import find_actor
from raymaker.platform.database.engine import Database
from raymaker.platform.errors import ServiceUnavailable
from raymaker.platform.node_types import nodes_to_come
from raymaker.platform.operations.registry import Context
from raymaker.platform.pools.seen import SeenContainer, SeenPool
from raymaker.platform.settings import Settings
from raymaker.serving.proxy import keep_handle_calls_local

FRONTEND_NAME = "raymaker-frontend"
POOL_TIMEOUT_S = 5.0

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class RayCluster:
    """What operations may ask of the cluster, answered by Ray."""

    def __init__(self, settings: Settings) -> None:
        self._types = load_catalogue(settings)
        self._to_come = nodes_to_come(settings)

    def instance_types(self) -> dict[str, InstanceType]:
        """The catalogue, by name."""
        return dict(self._types)

    def nodes(self) -> list[Resources]:
        """What each node could give in all: those that live, or where nodes are added the head and all that may be."""
        living = [node for node in living_nodes() if node.is_head or not self._to_come]
        return [node.resources for node in living] + (self._to_come or [])

    def is_open_ended(self) -> bool:
        """Whether the cluster grows by nodes of which nothing is known."""
        return self._to_come is None

    def pool(self) -> SeenPool:
        """The machines that run jobs, and those that wait, as the control actor saw them last; containers that wait."""
        try:
            control = ray.get_actor(CONTROL_NAME, namespace=NAMESPACE)
            answer: Any = control.call.remote("pool")
            pool: SeenPool = ray.get(answer, timeout=POOL_TIMEOUT_S)
        except (ValueError, RayError) as error:
            raise ServiceUnavailable("The control plane does not say which machines there are. Try again.") from error
        return dataclasses.replace(pool, containers=tuple(_waiting_containers()))

    def wake(self) -> None:
        """Tell the control actor; where it is away, its next step comes by itself."""
        try:
            ray.get_actor(CONTROL_NAME, namespace=NAMESPACE).call.remote("wake")
        except ValueError:
            return


def _waiting_containers() -> Iterator[SeenContainer]:
    """Those of every node whose janitor says so in time."""
    nodes = [node.id for node in living_nodes()]
    janitors = {node: janitor for node in nodes if (janitor := find_actor(JANITOR + node)) is not None}
    asked = {janitor.waiting_containers.remote(): node for node, janitor in janitors.items()}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=POOL_TIMEOUT_S) if asked else ([], [])
    for answer in answered:
        with contextlib.suppress(RayError):
            yield from (SeenContainer(asked[answer], image, since) for image, since in ray.get(answer))


def build_frontend(settings: Settings) -> serve.Application:
    """Return the Serve application that answers the API."""

    def build() -> Asgi:
        return create_app(
            Context(
                account=settings.account_id,
                region=settings.region,
                settings=settings,
                database=Database(settings.resolved_database_url),
                cluster=RayCluster(settings),
                now=time.time,
            )
        )

    @serve.deployment(
        name="frontend",
        num_replicas=1,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0, "resources": {HEAD_RESOURCE: 0.001}},
        graceful_shutdown_timeout_s=5,
    )
    @serve.ingress(build)
    class Frontend:
        """The API's replica."""

        def __init__(self) -> None:
            keep_handle_calls_local()

    application: serve.Application = Frontend.bind()  # type: ignore[attr-defined] # a Deployment by now
    return application
