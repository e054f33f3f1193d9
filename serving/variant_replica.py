"""A replica behind a router: it owns containers, and is asked through a Serve handle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from ray.serve.handle import DeploymentHandle

from raymaker.actors.reports import EndpointReporter
from raymaker.actors.site import Site
from raymaker.serving.backend import Invocation, Scored
from raymaker.serving.fleet_handle import Piece
from raymaker.serving.local_fleet import LocalFleet
from raymaker.serving.replica import NO_PARTS, ContainerReplica
from raymaker.serving.runtime_wire import WireAnswer
from raymaker.serving.spec import EndpointSpec


class VariantReplica(ContainerReplica):
    """One replica of a variant's fleet."""

    async def __init__(  # type: ignore[misc]
        self,
        spec: EndpointSpec,
        site: Site,
        reporter: EndpointReporter,
        parts: Mapping[str, DeploymentHandle[Any]] = NO_PARTS,
    ) -> None:
        """Start the containers. Serve waits for this, and sends requests only then. Raises WorkError."""
        super().__init__(spec, site, reporter, parts)
        self._local = LocalFleet(self._variant, await self.start_containers())

    def work_under_way(self) -> tuple[int, float]:
        """How many requests the container works on, and how long the longest may take."""
        return self._local.pending_count, self._local.longest_s

    async def invoke(self, invocation: Invocation) -> Scored | WireAnswer:
        """Answer one request, or say why not."""
        return await self._local.invoke(invocation)

    async def stream(self, invocation: Invocation) -> AsyncIterator[Piece]:
        """Answer piece by piece: how the answer begins, its pieces, and where it broke off; or a refusal."""
        async with aclosing(self._local.stream(invocation)) as pieces:
            async for piece in pieces:
                yield piece
