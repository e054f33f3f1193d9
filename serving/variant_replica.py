"""A replica behind a router: it owns containers, and is asked through a Serve handle.

What crosses is values: an error would not cross as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.serve.handle import DeploymentHandle

from raymaker.actors.reports import EndpointReporter
from raymaker.actors.site import Site
from raymaker.serving import runtime_wire as wire
from raymaker.serving.backend import Invocation, Scored, StreamBegins, StreamBreaks
from raymaker.serving.errors import StreamBroken
from raymaker.serving.replica import NO_PARTS, ContainerReplica
from raymaker.serving.runtime_wire import Refusal, WireAnswer
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
        self._pending_count = 0
        self._longest_s = self._timeout_s
        self._backend = await self.start_containers()

    def work_under_way(self) -> tuple[int, float]:
        """How many requests the container works on, and how long the longest may take."""
        return self._pending_count, self._longest_s

    async def invoke(self, invocation: Invocation) -> Scored | WireAnswer:
        """Answer one request, or say why not."""
        try:
            with self._counted(invocation):
                return await self._backend.invoke(invocation)
        except Refusal as refusal:
            return refusal.answer

    async def stream(self, invocation: Invocation) -> AsyncIterator[StreamBegins | bytes | StreamBreaks | WireAnswer]:
        """Answer piece by piece: how the answer begins, its pieces, and where it broke off; or a refusal."""
        try:
            with self._counted(invocation):
                async with self._backend.stream(invocation) as scored:
                    yield StreamBegins(scored.status, scored.headers, scored.variant)
                    async for piece in scored.pieces:
                        yield piece
        except StreamBroken as broken:
            yield StreamBreaks(broken.code, str(broken))
        except Refusal as refusal:
            yield refusal.answer

    @contextmanager
    def _counted(self, invocation: Invocation) -> Iterator[None]:
        """Take a request in, within the variant's limits. Raises Refusal."""
        if self._pending_count >= self._variant.max_pending_requests:
            raise Refusal(wire.too_many(self._pending_count, throttles=self._variant.throttles))
        if len(invocation.body) > self._variant.scoring.max_body_bytes:
            raise Refusal(wire.too_large(self._variant.scoring.max_body_bytes))
        self._longest_s = max(self._longest_s, invocation.timeout_s or 0.0)
        self._pending_count += 1
        try:
            yield
        finally:
            self._pending_count -= 1
