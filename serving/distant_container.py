"""A container of a graph that has a fleet of its own, as the graph asks it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from raymaker.serving.backend import Invocation, ScoredStream
from raymaker.serving.fleet_handle import REPLICA_WAIT_S, Fleet, streaming, telling
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.runtime_wire import Headers, Refusal, WireAnswer


class DistantContainer:
    """Any replica of the fleet will do: each has the same container."""

    log_stream_arn = ""
    """Not known where none has answered; else its answer says it."""

    def __init__(self, hostname: str, fleet: Fleet) -> None:
        self._hostname = hostname
        self._fleet = fleet

    async def ask(self, headers: Headers, body: bytes, *, timeout_s: float) -> ContainerAnswer:
        """Ask one of them. Raises Refusal where it gives no answer."""
        with telling(f"container {self._hostname}"):
            async with asyncio.timeout(timeout_s + REPLICA_WAIT_S):
                answer = await self._fleet.invoke(Invocation(headers, body, timeout_s))
        if isinstance(answer, WireAnswer):
            raise Refusal(answer)
        return ContainerAnswer(answer.status, answer.headers, answer.body, answer.log_stream_arn)

    def stream(self, invocation: Invocation) -> AbstractAsyncContextManager[ScoredStream]:
        """Ask one of them for an answer that comes piece by piece. Raises Refusal where it gives none, or an error."""
        allowed_s = (invocation.timeout_s or 0.0) + REPLICA_WAIT_S
        return streaming(self._fleet, invocation, f"container {self._hostname}", allowed_s)
