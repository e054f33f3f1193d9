"""The backend of a replica whose variant has several containers: each request goes its way through their graph.

What a graph does is `graph/`'s matter; how a container is asked, here or apart, that of the containers given.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from raymaker.serving import runtime_wire as wire
from raymaker.serving.backend import Invocation, Scored, ScoredStream
from raymaker.serving.errors import StreamBroken
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.answers import wire_error
from raymaker.serving.graph.document import Target
from raymaker.serving.graph.outcomes import NO_ANSWER
from raymaker.serving.graph.run import CallContainer, GraphAnswer, GraphRunner, StepCall
from raymaker.serving.graph.trace import trace_header
from raymaker.serving.local_container import READY_WAIT_S
from raymaker.serving.runtime_wire import TARGET_CONTAINER, TRACE_HEADER, Headers, Refusal, WireAnswer
from raymaker.serving.spec import GraphSpec


class StepContainer(Protocol):
    """Whom a step calls: a container here, or one that has a fleet of its own."""

    @property
    def log_stream_arn(self) -> str:
        """Where its log is read, '' where that is not known."""

    def ask(self, headers: Headers, body: bytes, *, timeout_s: float) -> Awaitable[ContainerAnswer]:
        """Have it answer an invocation. Raises Refusal where it gives no answer."""

    def stream(self, invocation: Invocation) -> AbstractAsyncContextManager[ScoredStream]:
        """Have it answer piece by piece. Raises Refusal where it gives no answer, and where that is an error."""


class LocalGraph:
    """A Backend. `containers` are all that the graph calls, by hostname. Belongs to one event loop.

    A request may take as long as over one container: `timeout_s`, and the wait for one that is being replaced.
    """

    def __init__(
        self,
        variant: str,
        spec: GraphSpec,
        containers: Mapping[str, StepContainer],
        *,
        timeout_s: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._variant = variant
        self._spec = spec
        self._containers = containers
        self._timeout_s = timeout_s
        self._runner = GraphRunner(spec.graph, self._call, draw=draw)

    async def invoke(self, invocation: Invocation) -> Scored:
        """Have the graph answer. Raises Refusal, which names the step where one failed."""
        said, headers = await self._answer(invocation, self._call)
        return Scored(said.status, headers, said.body, self._variant)

    @contextlib.asynccontextmanager
    async def stream(self, invocation: Invocation) -> AsyncIterator[ScoredStream]:
        """Have the graph answer. Where a step's answer is the graph's as it is, it is passed on as it comes.

        Any other is one piece. Raises Refusal.
        """
        async with contextlib.AsyncExitStack() as opened:
            said, headers = await self._answer(invocation, functools.partial(self._call_for_stream, opened))
            yield ScoredStream(said.status, headers, said.pieces or _whole(said.body), self._variant)

    async def close(self) -> None:
        """End the mirrored calls that are under way."""
        await self._runner.close()

    async def _answer(self, invocation: Invocation, call: CallContainer) -> tuple[ContainerAnswer, Headers]:
        """The graph's good answer, and its headers as the client gets them. Raises Refusal."""
        if self._spec.is_direct:
            self._check_target(invocation.headers)
        told = Invocation(_without_trace(invocation.headers), invocation.body, invocation.timeout_s)
        limit_s = invocation.timeout_s or self._timeout_s
        try:
            async with asyncio.timeout(limit_s + READY_WAIT_S):
                answer = await self._runner.run(told, call)
        except TimeoutError:
            reason = f"all steps together took longer than {limit_s:g} s"
            raise Refusal(wire.model_failed(reason, "")) from None
        traced = self._trace_of(answer) if _value(invocation.headers, TRACE_HEADER) is not None else []
        if answer.failure is not None:
            error = wire_error(answer, self._log_of(answer, answer.failure.target))
            raise Refusal(WireAnswer(error.status, [*error.headers, *traced], error.body))
        return answer.answer, [*_without_trace(answer.answer.headers), *traced]

    def _call(self, call: StepCall) -> Awaitable[ContainerAnswer]:
        container = self._containers[call.target.name]
        return container.ask(call.headers, call.body, timeout_s=call.timeout_s or self._timeout_s)

    async def _call_for_stream(self, opened: contextlib.AsyncExitStack, call: StepCall) -> ContainerAnswer:
        """Call a container; where its answer is to be the client's, `opened` holds it while it comes."""
        if not call.is_last:
            return await self._call(call)
        invocation = Invocation(call.headers, call.body, call.timeout_s or self._timeout_s)
        try:
            scored = await opened.enter_async_context(self._containers[call.target.name].stream(invocation))
        except Refusal as refusal:
            return _read_error(refusal)
        return ContainerAnswer(scored.status, scored.headers, b"", pieces=_naming(call.target, scored.pieces))

    def _check_target(self, headers: Headers) -> None:
        """See that a request names one of the containers. Raises Refusal."""
        wanted = _value(headers, TARGET_CONTAINER)
        if wanted is not None and wanted.decode() in self._containers:
            return
        there_are = f"this endpoint's containers are {', '.join(self._containers)}"
        if wanted is None:
            raise Refusal(wire.invalid(f"TargetContainerHostname is missing: name one, {there_are}"))
        raise Refusal(wire.invalid(f"TargetContainerHostname {wanted.decode()} is unknown: {there_are}"))

    def _log_of(self, answer: GraphAnswer, failed: Target | None) -> str:
        """Where the log of the container that failed is read, '' where none did."""
        if answer.answer.log_stream_arn:
            return answer.answer.log_stream_arn
        container = self._containers.get(failed.name) if failed is not None else None
        return container.log_stream_arn if container is not None else ""

    @staticmethod
    def _trace_of(answer: GraphAnswer) -> Headers:
        return [(TRACE_HEADER, trace_header(answer.trace, answer.total_ms))]


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _naming(target: Target, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass pieces on, and say whose they were where they break off."""
    try:
        async for piece in pieces:
            yield piece
    except StreamBroken as broken:
        raise StreamBroken(broken.code, f"{target}: {broken}") from None


def _read_error(refusal: Refusal) -> ContainerAnswer:
    """Turn what a container's error became on its way here back into its answer. Raises other refusals again."""
    said = json.loads(refusal.answer.body)
    status = said.get("OriginalStatusCode", NO_ANSWER)
    if status == NO_ANSWER:
        raise refusal
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    return ContainerAnswer(status, headers, said["OriginalMessage"].encode(), said.get("LogStreamArn", ""))


def _value(headers: Headers, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)


def _without_trace(headers: Headers) -> Headers:
    """Headers as they are for a step: the trace is between the client and the endpoint."""
    return [header for header in headers if header[0] != TRACE_HEADER]
