"""A backend in this process as a Fleet: within its variant's limits, and what it raises said as values.

What crosses to another replica is values: an error would not cross as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from raymaker.serving import runtime_wire as wire
from raymaker.serving.backend import Backend, Invocation, Scored, StreamBegins, StreamBreaks
from raymaker.serving.errors import StreamBroken
from raymaker.serving.fleet_handle import Piece
from raymaker.serving.runtime_wire import Refusal, WireAnswer
from raymaker.serving.spec import VariantSpec


class LocalFleet:
    """A Fleet of one. Belongs to one event loop."""

    def __init__(self, variant: VariantSpec, backend: Backend) -> None:
        self._variant = variant
        self._backend = backend
        self.pending_count = 0
        """How many requests the backend works on."""
        self.longest_s = variant.scoring.invocation_timeout_s
        """How long the longest of them may take."""

    async def invoke(self, invocation: Invocation) -> Scored | WireAnswer:
        """Answer one request, or say why not."""
        try:
            with self._counted(invocation):
                return await self._backend.invoke(invocation)
        except Refusal as refusal:
            return refusal.answer

    async def stream(self, invocation: Invocation) -> AsyncGenerator[Piece]:
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
        if self.pending_count >= self._variant.max_pending_requests:
            raise Refusal(wire.too_many(self.pending_count, throttles=self._variant.throttles))
        if len(invocation.body) > self._variant.scoring.max_body_bytes:
            raise Refusal(wire.too_large(self._variant.scoring.max_body_bytes))
        self.longest_s = max(self.longest_s, invocation.timeout_s or 0.0)
        self.pending_count += 1
        try:
            yield
        finally:
            self.pending_count -= 1
