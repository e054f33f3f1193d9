"""The Serve deployment in front of several variants: glue between Serve, the front and the router."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from raymaker.actors.reports import EndpointReporter
from raymaker.actors.site import Site
from raymaker.serving.activity import Load
from raymaker.serving.async_queue import InvocationQueue
from raymaker.serving.distant_container import DistantContainer
from raymaker.serving.fleet_handle import Fleet, ServeFleet
from raymaker.serving.front import Front
from raymaker.serving.herald import Herald
from raymaker.serving.invocations import Invocations
from raymaker.serving.local_fleet import LocalFleet
from raymaker.serving.local_graph import LocalGraph
from raymaker.serving.proxy import keep_handle_calls_local
from raymaker.serving.router import Router
from raymaker.serving.shadows import Comparison, Mirror
from raymaker.serving.shortcut import open_shortcut
from raymaker.serving.spec import EndpointSpec, VariantSpec
from raymaker.serving.variants import TrafficTable

TALLY_PERIOD_S = 60.0
"""How often it is told what came of shadow traffic, where there was any."""


@dataclass(frozen=True)
class Behind:
    """What stands behind a front. `fleets` are those of the same application, by name.

    `apart` are the variants that have none, since each of their containers has one: it gives these by hostname.
    """

    fleets: Mapping[str, DeploymentHandle[Any]]
    apart: Mapping[str, tuple[VariantSpec, Mapping[str, DeploymentHandle[Any]]]]


@serve.ingress()
class RouterReplica:
    """One replica of the front."""

    def __init__(
        self,
        spec: EndpointSpec,
        site: Site,
        reporter: EndpointReporter,
        queue: InvocationQueue,
        behind: Behind,
    ) -> None:
        keep_handle_calls_local()
        self._spec = spec
        self._site = site
        self._queue = queue
        self._reporter = reporter
        self._herald = Herald()
        self._mirror = Mirror(self._keep)
        self._load = Load()
        self._behind = behind
        self._running: dict[str, LocalGraph] = {}
        """The graphs that run here, by the names of what stands in for their fleets."""
        self._router = Router(self._connect, self._mirror, self._load)
        self._told: dict[str, str] = {}
        self._front: Front | None = None

    async def __serve_build_asgi_app__(self) -> Invocations:
        """Serve sends requests to what this returns, and only once `reconfigure` was called."""
        if self._spec.shadows:
            self._teller = asyncio.create_task(self._tell_now_and_then())
        self._front = Front(
            self._spec,
            self._router,
            self._queue,
            store=self._site.store,
            tell=self._tell,
            report=lambda activity: self._herald.tell(lambda: self._reporter.activity(activity)),
            replica_id=serve.get_replica_context().replica_id.unique_id,
            load=self._load,
        )
        open_shortcut(self._front.app)
        return self._front.app

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Take another traffic table. Serve calls this at the start, and at each change of weights.

        Handles belong to the event loop, so this must not go to a thread, where Serve would make a plain method run.
        """
        self._router.set_table(TrafficTable.from_config(config))

    async def __del__(self) -> None:
        """Say what is left to say. Serve calls this once no request is under way any more."""
        if self._front is not None:
            await self._front.stop_taking()
            await self._front.close()
        for graph in self._running.values():
            await graph.close()
        self._tell_tallies()
        await asyncio.to_thread(self._herald.finish)

    def _connect(self, fleet: str) -> Fleet:
        if fleet not in self._behind.apart:
            return ServeFleet(self._behind.fleets[fleet])
        variant, parts = self._behind.apart[fleet]
        if fleet not in self._running:
            assert variant.graph is not None
            containers = {hostname: DistantContainer(hostname, ServeFleet(part)) for hostname, part in parts.items()}
            timeout_s = variant.scoring.invocation_timeout_s
            self._running[fleet] = LocalGraph(variant.name, variant.graph, containers, timeout_s=timeout_s)
        return LocalFleet(variant, self._running[fleet])

    def _keep(self, seen: Comparison) -> None:
        """Have a shadow's answer captured, where the endpoint captures anything."""
        if self._front is not None and seen.shadow is not None and seen.shadow.status < 400:  # noqa: PLR2004 - errors
            self._front.keep(seen.invocation, seen.shadow)

    async def _tell_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(TALLY_PERIOD_S)
            self._tell_tallies()

    def _tell_tallies(self) -> None:
        """Tell of each shadow that has heard something since it was last told of."""
        for variant, tally in self._mirror.tallies.items():
            text = tally.describe(variant)
            if self._told.get(variant) != text:
                self._told[variant] = text
                self._tell(text)

    def _tell(self, text: str) -> None:
        spec = self._spec
        self._herald.tell(lambda: self._reporter.event(spec.endpoint_name, spec.generation, text, failed=False))
