"""A fleet behind a Serve handle: asked for answers, and what Serve raises said in the words of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Protocol

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from raymaker.serving import runtime_wire as wire
from raymaker.serving.backend import Invocation, Scored, ScoredStream, StreamBegins, StreamBreaks
from raymaker.serving.errors import StreamBroken
from raymaker.serving.runtime_wire import Refusal, WireAnswer

Piece = StreamBegins | bytes | StreamBreaks | WireAnswer
REPLICA_WAIT_S = 30.0
"""How long a request waits for a replica, on top of what the container may take."""


class Fleet(Protocol):
    """Replicas of one kind. Raises what Serve raises."""

    async def invoke(self, invocation: Invocation) -> Scored | WireAnswer:
        """A model's answer, or a refusal that is ready to be sent."""

    def stream(self, invocation: Invocation) -> AsyncGenerator[Piece]:
        """A refusal, or how the answer begins, its pieces, and how it broke off where it did."""


class ServeFleet:
    """A Fleet behind a Serve handle. Plain pickle does for bytes and frozen values."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        pickled: dict[str, Any] = {"request_serialization": "pickle", "response_serialization": "pickle"}
        self._invoke = handle.options(method_name="invoke", **pickled)
        self._stream = handle.options(method_name="stream", stream=True, **pickled)

    async def invoke(self, invocation: Invocation) -> Scored | WireAnswer:
        """Have a replica answer."""
        answer: Scored | WireAnswer = await self._invoke.remote(invocation)
        return answer

    async def stream(self, invocation: Invocation) -> AsyncGenerator[Piece]:
        """Have a replica answer piece by piece; one whose pieces nobody takes any more hears of it."""
        pieces: Any = self._stream.remote(invocation)
        try:
            async for piece in pieces:
                yield piece
        finally:
            pieces.cancel()


@contextmanager
def telling(whose: str) -> Iterator[None]:
    """Turn what Serve raises into what the client is told. Raises Refusal."""
    try:
        yield
    except TimeoutError:
        raise Refusal(wire.model_failed(f"{whose} took too long", "")) from None
    except BackPressureError:
        raise Refusal(wire.overloaded(f"{whose} has too many requests. Try again shortly.")) from None
    except RayActorError:
        raise Refusal(wire.model_failed(f"the replica of {whose} that worked on it ended", "")) from None
    except RayServeException as error:
        raise Refusal(wire.not_ready(f"{whose} cannot answer: {error}. Try again shortly.")) from None


@asynccontextmanager
async def streaming(fleet: Fleet, invocation: Invocation, whose: str, allowed_s: float) -> AsyncIterator[ScoredStream]:
    """Have a fleet answer piece by piece, beginning within `allowed_s`. Raises Refusal where it cannot."""
    async with aclosing(fleet.stream(invocation)) as pieces:
        with telling(whose):
            async with asyncio.timeout(allowed_s):
                begins = await anext(pieces)
        if isinstance(begins, WireAnswer):
            raise Refusal(begins)
        assert isinstance(begins, StreamBegins)
        yield ScoredStream(begins.status, begins.headers, _follow(pieces, whose), begins.variant)


async def _follow(pieces: AsyncGenerator[Piece], whose: str) -> AsyncIterator[bytes]:
    """Yield the pieces of an answer that has begun. Raises StreamBroken where it breaks off."""
    try:
        async for piece in pieces:
            if isinstance(piece, StreamBreaks):
                raise StreamBroken(piece.code, piece.message)
            assert isinstance(piece, bytes)
            yield piece
    except RayActorError:
        raise StreamBroken("StreamBroken", f"the replica of {whose} ended") from None
