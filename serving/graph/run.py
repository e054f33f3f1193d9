"""Carries out what a graph's rules decide: calls steps, within their time limits, again where they ask for it.

The one seam to placement is the function that calls a container. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from raymaker.serving.backend import Invocation
from raymaker.serving.errors import ForwardError
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.document import ROOT, Dependency, Graph, Step, Target, TargetKind
from raymaker.serving.graph.outcomes import (
    NO_ANSWER,
    Failure,
    Origin,
    Outcome,
    failed,
    is_worth_another_try,
    pause_before_retry_s,
)
from raymaker.serving.graph.rules import Call, CallTogether, Copy, Decision, Fail, Situation, Skip, decide
from raymaker.serving.graph.trace import Recorder, StepState, StepTrace
from raymaker.serving.runtime_wire import Headers, Refusal

logger = logging.getLogger(__name__)

MOST_MIRRORS = 64
"""How many mirrored calls of one runner may be under way; more are not made, and counted."""


class StepCall(NamedTuple):
    """One call of a container. The runner holds the time limit; it is told for those who pass the call on."""

    target: Target
    headers: Headers
    body: bytes
    timeout_s: float | None
    is_last: bool
    """Whether the answer, if it is a good one, is the graph's as it is, so that it may be streamed."""


CallContainer = Callable[[StepCall], Awaitable[ContainerAnswer]]
"""Calls a container or model. Raises ForwardError or TimeoutError where it gives no answer, Refusal where it cannot be
called now. Where a call is the last one, a good answer may still be coming: the runner hands back the very object."""


class GraphAnswer(NamedTuple):
    """What a graph answers. With a failure, `answer` is the error: a container's own where one gave it."""

    answer: ContainerAnswer
    failure: Failure | None
    trace: tuple[StepTrace, ...]
    total_ms: float


class GraphRunner:
    """Runs one graph for many requests. Mirrored calls outlive their request, but not the runner."""

    def __init__(
        self,
        graph: Graph,
        call: CallContainer,
        *,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.graph = graph
        self.call = call
        self.draw = draw
        self.clock = clock
        self.pause = pause
        self.dropped_mirror_count = 0
        self._mirrors: set[asyncio.Task[None]] = set()

    async def run(self, request: Invocation, call: CallContainer | None = None) -> GraphAnswer:
        """Answer one request. Whoever cancels this cancels the steps under way, mirrored ones excepted.

        `call` calls containers for this request, in place of the runner's own, but for mirrored steps.
        """
        recorder = Recorder(self.clock)
        visit = _Visit(self, recorder, request, call or self.call)
        outcome = await visit.run_node(ROOT, request, ROOT, is_last=True)
        return GraphAnswer(outcome.answer, outcome.failure, tuple(recorder.steps), recorder.elapsed_ms())

    def mirror(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Do work that nobody waits for, unless too much is under way already."""
        if len(self._mirrors) >= MOST_MIRRORS:
            self.dropped_mirror_count += 1
            return False
        task = asyncio.create_task(_run_unseen(work))
        self._mirrors.add(task)
        task.add_done_callback(self._mirrors.discard)
        return True

    async def close(self) -> None:
        """End the mirrored calls that are under way."""
        await _cancel(tuple(self._mirrors))


class _Visit:
    """One request's way through a graph."""

    def __init__(
        self, runner: GraphRunner, recorder: Recorder, request: Invocation, call_container: CallContainer
    ) -> None:
        self._runner = runner
        self._recorder = recorder
        self._request = request
        self._call_container = call_container

    async def run_node(self, name: str, given: Invocation, path: str, *, is_last: bool) -> Outcome:
        """Have a node rule, and do what it decides. `path` leads from the root to the step that called it."""
        is_clients = given.body is self._request.body
        ruling = decide(self._runner.graph.nodes[name], Situation(given, self._runner.draw, is_last, is_clients))
        traces: dict[str, StepTrace] = {}
        sent: object = None
        while True:
            try:
                decision = ruling.send(sent)
            except StopIteration as end:
                outcome: Outcome = end.value
                return _name_step(outcome, path)
            if isinstance(decision, Call):  # what nearly all are
                sent = await self._call(decision, path, traces)
            else:
                sent = await self._carry_out(decision, path, traces)

    async def _carry_out(self, decision: Decision, path: str, traces: dict[str, StepTrace]) -> object:
        match decision:
            case CallTogether():
                return await self._call_together(decision.calls, path, traces)
            case Copy():
                self._copy(decision, path)
            case Skip():
                self._recorder.begin(f"{path}/{decision.step.label}", decision.step.target, StepState.SKIPPED)
            case Fail():
                return self._fail(decision, path, traces)
        return None

    async def _call(self, call: Call, path: str, traces: dict[str, StepTrace]) -> Outcome:
        """Call a step until it answers or has failed as often as it may."""
        step = call.step
        step_path = f"{path}/{step.label}"
        trace = traces[step.label] = self._recorder.begin(step_path, step.target)
        try:
            for attempt in itertools.count(1):
                trace.attempt_count = attempt
                outcome = await self._attempt(call, step_path)
                if attempt > step.retry_count or not is_worth_another_try(outcome):
                    break
                await self._runner.pause(pause_before_retry_s(attempt))
        finally:
            self._recorder.end(trace)
        self._recorder.judge(trace, outcome)
        return outcome

    async def _attempt(self, call: Call, path: str) -> Outcome:
        step = call.step
        try:
            if step.timeout_s is None:  # most have none, and a limit that never ends costs as much as one that may
                return await self._do(call, path)
            async with asyncio.timeout(step.timeout_s):
                return await self._do(call, path)
        except TimeoutError:
            limit = f"{step.timeout_s:g} s" if step.timeout_s is not None else "it may"
            return _name_step(failed(Origin.SILENCE, NO_ANSWER, f"it took longer than {limit}"), path, step)

    def _do(self, call: Call, path: str) -> Awaitable[Outcome]:
        """Call what a step calls, once. Raises TimeoutError where a container says so."""
        if call.step.target.kind is TargetKind.NODE:
            return self.run_node(call.step.target.name, call.given, path, is_last=call.is_last)
        return self._ask(call, path)

    async def _ask(self, call: Call, path: str) -> Outcome:
        """Call a container, and put whatever comes of it into an Outcome."""
        step, given = call.step, call.given
        try:
            answer = await self._call_container(
                StepCall(step.target, given.headers, given.body, step.timeout_s, call.is_last)
            )
        except ForwardError as error:
            return _name_step(failed(Origin.SILENCE, NO_ANSWER, str(error)), path, step)
        except Refusal as refusal:
            return _name_step(_read_refusal(refusal), path, step)
        if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's success
            return Outcome(answer)
        return Outcome(answer, Failure(Origin.CONTAINER, f"it answered {answer.status}", path, step.target))

    async def _call_together(
        self, calls: Sequence[Call], path: str, traces: dict[str, StepTrace]
    ) -> Sequence[Outcome | None]:
        """Call steps at once. The first hard failure ends the others."""
        tasks = {asyncio.create_task(self._call(call, path, traces)): call.step for call in calls}
        pending = set(tasks)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if any(not task.result().is_good and tasks[task].dependency is Dependency.HARD for task in done):
                    break
        finally:
            await _cancel(pending)
        return [None if task.cancelled() else task.result() for task in tasks]

    def _copy(self, copy: Copy, path: str) -> None:
        """Call a step beside the request, with a trace that nobody reads."""
        aside = _Visit(self._runner, Recorder(self._runner.clock), self._request, self._runner.call)
        is_made = self._runner.mirror(lambda: aside._call(Call(copy.step, copy.given), path, {}))
        state = StepState.MIRRORED if is_made else StepState.SKIPPED
        self._recorder.begin(f"{path}/{copy.step.label}", copy.step.target, state)

    def _fail(self, fail: Fail, path: str, traces: dict[str, StepTrace]) -> Outcome:
        """Note a failure: of a step that was called, or of one that was never called for it."""
        step = fail.step
        step_path = f"{path}/{step.label}"
        outcome = _name_step(fail.outcome, step_path, step)
        trace = traces.get(step.label) or self._recorder.begin(step_path, step.target)
        self._recorder.judge(trace, outcome)
        return outcome


def _read_refusal(refusal: Refusal) -> Outcome:
    """Tell a container that gave no answer, which a Backend says with a Refusal, from one that was not called."""
    answer = refusal.answer
    said = json.loads(answer.body)
    if said.get("OriginalStatusCode") == NO_ANSWER:
        return failed(Origin.SILENCE, NO_ANSWER, said["OriginalMessage"])
    refused = ContainerAnswer(answer.status, answer.headers, answer.body)
    return Outcome(refused, Failure(Origin.REFUSAL, said["Message"]))


def _name_step(outcome: Outcome, path: str, step: Step | None = None) -> Outcome:
    """Say where a failure happened, unless that is known already."""
    if outcome.failure is None or outcome.failure.step:
        return outcome
    target = step.target if step is not None else None
    return Outcome(outcome.answer, dataclasses.replace(outcome.failure, step=path, target=target))


async def _run_unseen(work: Callable[[], Awaitable[object]]) -> None:
    try:
        await work()
    except Exception:
        logger.exception("a mirrored step could not be called")


async def _cancel(tasks: Sequence[asyncio.Task[None]] | set[asyncio.Task[Outcome]]) -> None:
    """End tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
