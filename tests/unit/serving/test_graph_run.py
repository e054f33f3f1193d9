"""The executor: who is called when, what is cancelled, what may be streamed, what is counted."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raymaker.serving import runtime_wire as wire
from raymaker.serving.backend import Invocation
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph import run
from raymaker.serving.graph.document import Graph, direct_graph, parse_graph, serial_graph
from raymaker.serving.graph.outcomes import Origin
from raymaker.serving.graph.run import GraphAnswer, StepCall
from support.graph_cases import HANG, Case, node, step, to_node
from support.graphs import StubContainers, invocation, make_runner, run_graph, run_story


def run_once(nodes: dict[str, Any], answers: dict[str, Any] | None = None, **fields: Any) -> list[StepCall]:
    """The calls that one request makes."""
    containers = StubContainers()
    case = Case("", nodes, answers or {}, **fields)
    run_graph(parse_graph(case.document), case, containers)
    return containers.calls


def last_calls(nodes: dict[str, Any], **fields: Any) -> list[str]:
    """The containers whose answers may be streamed."""
    return [call.target.name for call in run_once(nodes, **fields) if call.is_last]


def test_the_last_step_of_a_sequence_may_be_streamed() -> None:
    assert last_calls({"root": node("Sequence", step("a"), step("b"))}) == ["b"]


def test_a_step_behind_which_a_condition_waits_is_not_known_to_be_the_last() -> None:
    assert last_calls({"root": node("Sequence", step("a"), step("b", Condition="response.n"))}) == []


def test_a_mirror_behind_the_last_step_is_no_hindrance_unless_it_reads_the_answer() -> None:
    assert last_calls({"root": node("Sequence", step("a"), step("b", Mirror=True))}) == ["a"]
    assert last_calls({"root": node("Sequence", step("a"), step("b", Mirror=True, Data="$response"))}) == []
    assert last_calls({"root": node("Sequence", step("a"), step("b", Mirror=True, Data="response.x"))}) == []


def test_the_chosen_step_of_a_switch_or_splitter_may_be_streamed_and_those_of_an_ensemble_not() -> None:
    chosen = node("Splitter", step("b", Weight=1), step("c", Weight=0))
    assert last_calls({"root": node("Switch", to_node("split")), "split": chosen}) == ["b"]
    assert last_calls({"root": node("Ensemble", to_node("split")), "split": chosen}) == []
    assert last_calls({"root": node("Sequence", to_node("split"), step("a")), "split": chosen}) == ["a"]


def test_the_last_answer_comes_back_as_the_very_object_that_the_caller_made() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"1"

    made = ContainerAnswer(200, [], b"", pieces=pieces())

    async def call(_: StepCall) -> ContainerAnswer:
        return made

    async def story() -> GraphAnswer:
        return await run.GraphRunner(serial_graph(["a", "b"]), call).run(invocation())

    assert run_story(story()).answer is made


def test_the_step_is_told_its_time_limit() -> None:
    calls = run_once({"root": node("Sequence", step("a", TimeoutInSeconds=7), step("b"))})
    assert [call.timeout_s for call in calls] == [7, None]


def test_serial_hands_each_answer_on_verbatim() -> None:
    containers = StubContainers()
    answered = run_graph(serial_graph(["a", "b", "c"]), Case("", {}), containers)
    assert answered.answer.body == b"c(b(a(x)))"
    assert {dict(call.headers)[b"content-type"] for call in containers.calls} == {b"text/csv; charset=utf-8"}


@pytest.mark.parametrize(("wanted", "answer"), [("b", b"b(x)"), ("nobody", b"node root took no step")])
def test_direct_calls_the_container_that_the_request_names(wanted: str, answer: bytes) -> None:
    case = Case("", {}, headers={"x-amzn-sagemaker-target-container-hostname": wanted})
    assert run_graph(direct_graph(["a", "b"]), case).answer.body.startswith(answer)


@pytest.mark.parametrize("router", ["Sequence", "Ensemble"])
def test_when_the_client_leaves_the_steps_under_way_are_cancelled(router: str) -> None:
    containers = StubContainers()
    case = Case("", {"root": node(router, step("a"), step("b"))}, {"a": [HANG], "b": [HANG]})

    async def story() -> None:
        runner = make_runner(parse_graph(case.document), containers)
        request = asyncio.create_task(runner.run(case.request("1")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert request.cancelled()
        assert len(asyncio.all_tasks()) == 1

    run_story(story())
    assert containers.names_called() == (["a"] if router == "Sequence" else ["a", "b"])
    assert sorted(containers.cancelled) == containers.names_called()


def test_a_mirror_outlives_its_request_and_ends_with_the_runner() -> None:
    containers = StubContainers()
    case = Case("", {"root": node("Sequence", step("a"), step("b", Mirror=True))}, {"b": [HANG]})

    async def story() -> None:
        runner = make_runner(parse_graph(case.document), containers)
        await runner.run(case.request("1"))
        await asyncio.sleep(0)
        assert containers.names_called() == ["a", "b"]
        assert containers.cancelled == []
        await runner.close()
        assert containers.cancelled == ["b"]

    run_story(story())


def test_mirrors_beyond_the_most_are_not_made_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MOST_MIRRORS", 1)
    case = Case("", {"root": node("Sequence", step("a"), step("b", Mirror=True))}, {"b": [HANG]})

    async def story() -> None:
        runner = make_runner(parse_graph(case.document), StubContainers())
        await runner.run(case.request("1"))
        second = await runner.run(case.request("2"))
        assert [found.state for found in second.trace] == ["Answered", "Skipped"]
        assert runner.dropped_mirror_count == 1
        await runner.close()

    run_story(story())


def test_a_mirror_that_cannot_be_called_at_all_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async def call(made: StepCall) -> ContainerAnswer:
        if made.target.name == "b":
            raise RuntimeError("a bug")
        return ContainerAnswer(200, [], b"fine")

    async def story() -> GraphAnswer:
        nodes = {"root": node("Sequence", step("a"), step("b", Mirror=True))}
        runner = run.GraphRunner(parse_graph({"Nodes": nodes}), call)
        answered = await runner.run(invocation())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return answered

    assert run_story(story()).answer.body == b"fine"
    assert "a mirrored step could not be called" in caplog.text


def refuse_with(answer: wire.WireAnswer) -> GraphAnswer:
    async def call(_: StepCall) -> ContainerAnswer:
        raise wire.Refusal(answer)

    async def story() -> GraphAnswer:
        return await run.GraphRunner(_one_step(), call).run(Invocation([], b""))

    return run_story(story())


def _one_step() -> Graph:
    return parse_graph({"Nodes": {"root": node("Sequence", step("a"))}})


def test_a_backends_word_for_no_answer_is_no_answer() -> None:
    answered = refuse_with(wire.model_failed("it died", ""))
    assert answered.failure is not None
    assert (answered.failure.origin, answered.failure.reason, answered.answer.status) == (Origin.SILENCE, "it died", 0)


def test_a_backends_other_refusals_are_kept() -> None:
    answered = refuse_with(wire.not_ready("it is being replaced"))
    assert answered.failure is not None
    assert (answered.failure.origin, answered.answer.status) == (Origin.REFUSAL, 429)


def test_pauses_between_attempts_grow() -> None:
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    async def call(_: StepCall) -> ContainerAnswer:
        return ContainerAnswer(500, [], b"")

    async def story() -> None:
        graph = parse_graph({"Nodes": {"root": node("Sequence", step("a", Retries=6))}})
        await run.GraphRunner(graph, call, pause=pause).run(invocation())

    run_story(story())
    assert paused == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]


def test_the_trace_tells_when_each_step_began_and_how_long_it_took() -> None:
    now_s = 100.0

    async def call(_: StepCall) -> ContainerAnswer:
        nonlocal now_s
        now_s += 0.25
        return ContainerAnswer(200, [], b"")

    async def story() -> GraphAnswer:
        return await run.GraphRunner(serial_graph(["a", "b"]), call, clock=lambda: now_s).run(invocation())

    answered = run_story(story())
    assert [(found.start_ms, found.duration_ms) for found in answered.trace] == [(0.0, 250.0), (250.0, 250.0)]
    assert answered.total_ms == 500.0


def test_the_trace_tells_how_long_a_step_worked_before_it_was_given_up() -> None:
    case = Case("", {"root": node("Sequence", to_node("n", TimeoutInSeconds=3)), "n": node("Sequence", step("a"))})

    async def story() -> GraphAnswer:
        hanging = dataclasses.replace(case, answers={"a": [HANG]})
        loop = asyncio.get_running_loop()
        runner = run.GraphRunner(parse_graph(case.document), StubContainers().call, clock=loop.time)
        return await runner.run(hanging.request("1"))

    waited, given_up = run_story(story()).trace
    assert (waited.state, given_up.state) == ("Failed", "Cancelled")
    assert 0 < given_up.duration_ms <= waited.duration_ms
