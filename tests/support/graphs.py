"""Runs graphs in-process, over stubs, on a loop whose clock skips what it would wait."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import chain, repeat
from typing import Any, TypeVar

from raymaker.serving.backend import Invocation
from raymaker.serving.errors import NoAnswer
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.document import Graph
from raymaker.serving.graph.run import GraphAnswer, GraphRunner, StepCall
from raymaker.serving.graph.trace import trace_document
from support.graph_cases import Case, summary
from support.graph_stub import choose_reply, make_answer

T = TypeVar("T")


class StubContainers:
    """Every container of a graph: answers as the request's own script says."""

    def __init__(self) -> None:
        self.calls: list[StepCall] = []
        self.cancelled: list[str] = []
        self._counts: Counter[str] = Counter()

    def names_called(self) -> list[str]:
        return [call.target.name for call in self.calls]

    async def call(self, call: StepCall) -> ContainerAnswer:
        self.calls.append(call)
        name = call.target.name
        headers = {key.decode(): value.decode() for key, value in call.headers}
        reply = choose_reply(name, headers.get("x-amzn-sagemaker-custom-attributes", ""), self._counts[name])
        self._counts[name] += 1
        if "hang" in reply:
            await self._hang(name)
        if "break" in reply:
            raise NoAnswer("it closed the connection")
        status, content_type, body = make_answer(name, reply, headers, call.body)
        return ContainerAnswer(status, [(b"content-type", content_type.encode())] if content_type else [], body)

    async def _hang(self, name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise


class _Skipping(selectors.DefaultSelector):
    """Never waits: tells the loop how long it would have."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.skipped_s += timeout or 0.0
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop in which time passes at once where there is nothing to do."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return super().time() + self._skipping.skipped_s


def run_story(story: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(story)


async def no_pause(_: float) -> None:
    """Try again at once."""


def make_runner(graph: Graph, containers: StubContainers, *draws: float) -> GraphRunner:
    return GraphRunner(graph, containers.call, draw=drawing(*draws), pause=no_pause)


def drawing(*draws: float) -> Callable[[], float]:
    """Draw these numbers, the last one again and again."""
    numbers = chain(draws, repeat(draws[-1] if draws else 0.0))
    return lambda: next(numbers)


def run_graph(graph: Graph, case: Case, containers: StubContainers | None = None) -> GraphAnswer:
    """Run a case over stubs, its mirrors included."""

    async def story() -> GraphAnswer:
        runner = make_runner(graph, containers or StubContainers(), *case.draws)
        answer = await runner.run(case.request("id"))
        await asyncio.sleep(0)
        await runner.close()
        return answer

    return run_story(story())


def assert_answers(case: Case, answered: GraphAnswer) -> None:
    """What a graph answered is what its case says."""
    assert answered.answer.status == case.status
    if case.answer is not None:
        body = answered.answer.body
        assert (body if isinstance(case.answer, bytes) else json.loads(body)) == case.answer
    if case.answer_type is not None:
        assert dict(answered.answer.headers)[b"content-type"].decode() == case.answer_type
    failure = answered.failure
    assert (failure.step if failure else "") == case.failed_step
    assert case.said in (failure.reason if failure else "")
    assert summary(trace_document(answered.trace, answered.total_ms)["steps"]) == case.trace


def invocation(body: bytes = b"x", **headers: str) -> Invocation:
    return Invocation([(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()], body)
