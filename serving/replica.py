"""The Serve deployments that own scoring containers: glue between Serve, the keeper, and the front or a router."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from raymaker.actors.reports import EndpointReporter
from raymaker.actors.runtime.base import LogLine
from raymaker.actors.site import Site
from raymaker.serving.async_queue import InvocationQueue
from raymaker.serving.backend import Backend
from raymaker.serving.distant_container import DistantContainer
from raymaker.serving.fleet_handle import ServeFleet
from raymaker.serving.front import Front
from raymaker.serving.herald import Herald
from raymaker.serving.invocations import Invocations
from raymaker.serving.kept_container import LOG_GROUP, KeptContainer
from raymaker.serving.local_container import LocalContainer
from raymaker.serving.local_graph import LocalGraph
from raymaker.serving.multimodel import open_models
from raymaker.serving.proxy import keep_handle_calls_local
from raymaker.serving.resting import Rest
from raymaker.serving.shortcut import open_shortcut
from raymaker.serving.spec import EndpointSpec

NO_PARTS: Mapping[str, DeploymentHandle[Any]] = MappingProxyType({})


class ContainerReplica:
    """One replica of one variant, the only one in `spec`: it owns the variant's containers, and asks for their health.

    Of several each is started, asked and replaced by itself. `parts` are the fleets of those that run elsewhere.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        site: Site,
        reporter: EndpointReporter,
        parts: Mapping[str, DeploymentHandle[Any]] = NO_PARTS,
    ) -> None:
        keep_handle_calls_local()
        self._parts = parts
        self._spec = spec
        self._site = site
        self._reporter = reporter
        self._herald = Herald()
        self._replica_id = serve.get_replica_context().replica_id.unique_id
        self._variant = spec.variants[0]
        self._timeout_s = self._variant.scoring.invocation_timeout_s
        self._containers: Mapping[str | None, KeptContainer] = {}
        """Those that were started, by hostname."""
        self._graph: LocalGraph | None = None
        self._is_started = False

    def work_under_way(self) -> tuple[int, float]:
        """How many requests the containers work on, and how long the longest may take."""
        raise NotImplementedError

    async def start_containers(self) -> Backend:
        """Start all containers, and return what asks them. Raises WorkError; then none is left."""
        kept = {hostname: self._keep(hostname) for hostname in self._variant.scorings}
        outcomes = await asyncio.gather(*(each.start() for each in kept.values()), return_exceptions=True)
        if failures := [outcome for outcome in outcomes if outcome is not None]:
            started = [each for each, outcome in zip(kept.values(), outcomes, strict=True) if outcome is None]
            await asyncio.gather(*(each.stop() for each in started))
            await asyncio.to_thread(self._herald.finish)
            raise failures[0]
        self._containers = kept
        self._is_started = True
        return self._open_backend()

    async def check_health(self) -> None:
        """Ask the containers, replace those that hang, and raise where this machine should be given up."""
        await asyncio.gather(*(each.check(*self.work_under_way()) for each in self._containers.values()))

    async def __del__(self) -> None:
        """End the containers with grace. Serve calls this once no request is under way any more."""
        if self._graph is not None:
            await self._graph.close()
        if self._is_started:
            await asyncio.gather(*(each.stop() for each in self._containers.values()))
            await self.close()
            await asyncio.to_thread(self._herald.finish)

    async def close(self) -> None:
        """Do what is left to do once the containers have ended."""

    def _keep(self, hostname: str | None) -> KeptContainer:
        return KeptContainer(self._spec, self._site, self._replica_id, hostname, tell=self._tell_of, log=self._log)

    def _open_backend(self) -> Backend:
        variant = self._variant
        if variant.graph is not None:
            containers: dict[str, LocalContainer | DistantContainer] = {
                hostname: self._containers[hostname].local if hostname in self._containers else self._reach(hostname)
                for hostname in variant.graph.containers
            }
            self._graph = LocalGraph(variant.name, variant.graph, containers, timeout_s=self._timeout_s)
            return self._graph
        (kept,) = self._containers.values()
        return open_models(variant.scoring, kept.local, kept.model_folder, self._site.store) or kept.local

    def _reach(self, hostname: str) -> DistantContainer:
        return DistantContainer(hostname, ServeFleet(self._parts[hostname]))

    def _tell(self, message: str) -> None:
        self._tell_of(f"{self._variant.name}/{self._replica_id}", message, False)

    def _tell_of(self, stream: str, message: str, failed: bool) -> None:  # noqa: FBT001 - the keeper's own signature
        spec = self._spec
        text = f"{stream}: {message}"
        self._herald.tell(lambda: self._reporter.event(spec.endpoint_name, spec.generation, text, failed=failed))

    def _log(self, stream: str, lines: Sequence[LogLine]) -> None:
        self._reporter.log(f"{LOG_GROUP}/{self._spec.endpoint_name}", stream, lines)


@serve.ingress()
class ScoringReplica(ContainerReplica):
    """A replica of an endpoint's front that holds its containers itself: requests come in here and go no further.

    `fleets` are those of another revision, which come up or go away beside this one.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        site: Site,
        reporter: EndpointReporter,
        queue: InvocationQueue,
        fleets: Mapping[str, DeploymentHandle[Any]],  # noqa: ARG002 - Serve keeps what is bound here
    ) -> None:
        super().__init__(spec, site, reporter)
        self._queue = queue
        self._front: Front | None = None
        self._rest: Rest | None = None

    async def __serve_build_asgi_app__(self) -> Invocations:
        """Start the containers; Serve sends requests to what this returns, and only then. Raises WorkError."""
        backend = await self.start_containers()
        self._front = Front(
            self._spec,
            backend,
            self._queue,
            store=self._site.store,
            tell=self._tell,
            report=lambda activity: self._herald.tell(lambda: self._reporter.activity(activity)),
            replica_id=self._replica_id,
        )
        if self._spec.idle_s is not None and self._site.lets_rest:
            front = self._front
            self._rest = Rest(self._containers.values(), front.app.load, lambda: front.pending_count, self._spec.idle_s)
        if self._variant.scaling is None:  # else Serve's autoscaler has to count what is under way
            open_shortcut(self._front.app)
        return self._front.app

    def work_under_way(self) -> tuple[int, float]:
        """How many requests the container works on, and how long the longest may take."""
        return (self._front.pending_count, self._front.longest_timeout_s) if self._front else (0, self._timeout_s)

    async def __del__(self) -> None:
        """Let the front go with the container: it asks nothing more of it, and writes what it has captured."""
        if self._rest is not None:
            self._rest.stop()
        if self._front is not None:
            await self._front.stop_taking()
        await super().__del__()

    async def close(self) -> None:
        """Write what was captured."""
        if self._front is not None:
            await self._front.close()
