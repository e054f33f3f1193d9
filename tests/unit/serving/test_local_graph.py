"""A replica's several containers behind one backend: answers, refusals, traces, and requests that name a container."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from raymaker.actors.spec import ScoringSpec
from raymaker.serving.backend import Invocation, Scored
from raymaker.serving.errors import NoAnswer, StreamBroken
from raymaker.serving.graph.document import Graph, direct_graph, parse_graph, serial_graph
from raymaker.serving.local_container import LocalContainer
from raymaker.serving.local_graph import LocalGraph
from raymaker.serving.runtime_wire import TARGET_CONTAINER, TRACE_HEADER, Refusal
from raymaker.serving.spec import GraphSpec
from support.graphs import invocation, run_story
from support.scoring import ADDRESS, FakeContainer


class Story:
    """Two containers that echo, `a` and `b`, in a graph."""

    def __init__(self, graph: Graph, *, is_direct: bool = False, missing: str = "", timeout_s: float = 60.0) -> None:
        self.a, self.b = FakeContainer(), FakeContainer()
        self.locals = {
            name: LocalContainer("v", "arn", timeout_s=60.0, connect=lambda *_, it=container: it)
            for name, container in (("a", self.a), ("b", self.b))
        }
        for name, container in self.locals.items():
            container.set_container(None if name == missing else ADDRESS)
        spec = GraphSpec({name: ScoringSpec() for name in self.locals}, graph, is_direct)
        self.backend = LocalGraph("v", spec, self.locals, timeout_s=timeout_s)

    async def refused(self, asked: Invocation) -> tuple[int, dict[bytes, bytes], dict[str, Any]]:
        with pytest.raises(Refusal) as caught:
            await self.backend.invoke(asked)
        answer = caught.value.answer
        return answer.status, dict(answer.headers), json.loads(answer.body)


def serial(**options: Any) -> Story:
    return Story(serial_graph(["a", "b"]), **options)


def direct() -> Story:
    return Story(direct_graph(["a", "b"]), is_direct=True)


def naming(hostname: str) -> Invocation:
    return Invocation([(TARGET_CONTAINER, hostname.encode())], b"x")


def test_the_last_answer_is_the_variants_and_untraced_where_nobody_asks() -> None:
    async def story() -> None:
        graph = serial()
        assert await graph.backend.invoke(invocation()) == Scored(200, [(b"content-type", b"text/plain")], b"x", "v")
        assert [path for _, path, _, _ in graph.a.seen + graph.b.seen] == ["/invocations"] * 2

    run_story(story())


def test_the_trace_goes_to_the_client_that_asks_for_it_and_to_no_container() -> None:
    async def story() -> None:
        graph = serial()
        scored = await graph.backend.invoke(Invocation([(TRACE_HEADER, b"1"), (b"accept", b"x/y")], b"x"))
        trace = json.loads(dict(scored.headers)[TRACE_HEADER])
        assert [step["step"] for step in trace["steps"]] == ["root/a", "root/b"]
        assert all(TRACE_HEADER not in dict(headers) for _, _, headers, _ in graph.a.seen + graph.b.seen)

    run_story(story())


def test_a_container_that_gives_no_answer_is_a_model_error_that_names_the_step_and_the_log() -> None:
    async def story() -> None:
        graph = serial()
        graph.b.fail_next(NoAnswer("it closed the connection"))
        status, headers, said = await graph.refused(Invocation([(TRACE_HEADER, b"1")], b"x"))
        assert (status, headers[b"x-amzn-errortype"], said["OriginalStatusCode"]) == (424, b"ModelError", 0)
        assert said["Message"].startswith("Step root/b (container b): ")
        assert said["LogStreamArn"] == "arn"
        assert json.loads(headers[TRACE_HEADER])["steps"][1]["state"] == "Failed"

    run_story(story())


def test_a_containers_own_error_keeps_its_status_and_words() -> None:
    async def story() -> None:
        graph = serial()
        graph.a.status = 418
        status, _, said = await graph.refused(invocation(b"teapot"))
        assert (status, said["OriginalStatusCode"], said["OriginalMessage"]) == (424, 418, "teapot")

    run_story(story())


def test_a_container_that_is_being_replaced_is_waited_for() -> None:
    async def story() -> None:
        graph = serial(missing="b")
        asyncio.get_running_loop().call_later(20, graph.locals["b"].set_container, ADDRESS)
        assert (await graph.backend.invoke(invocation())).body == b"x"

    run_story(story())


def test_one_that_does_not_come_back_in_time_is_not_ready() -> None:
    async def story() -> None:
        status, headers, said = await serial(missing="b").refused(invocation())
        assert (status, headers[b"x-amzn-errortype"]) == (429, b"ModelNotReadyException")
        assert said["Message"].startswith("Step root/b (container b): ")

    run_story(story())


def test_all_steps_together_take_no_longer_than_one_container_may() -> None:
    async def story() -> None:
        graph = serial(timeout_s=40.0)
        graph.a.hold = graph.b.hold = asyncio.Event()
        asyncio.get_running_loop().call_later(39, graph.a.hold.set)
        graph.b.hold = asyncio.Event()
        status, _, said = await graph.refused(invocation())
        assert (status, said["OriginalStatusCode"]) == (424, 0)
        assert "all steps together took longer than 40 s" in said["Message"]

    run_story(story())


def test_a_request_reaches_the_container_that_it_names() -> None:
    async def story() -> None:
        graph = direct()
        await graph.backend.invoke(naming("b"))
        assert (len(graph.a.seen), len(graph.b.seen)) == (0, 1)
        for asked, reason in ((naming("c"), "c is unknown"), (invocation(), "is missing")):
            status, _, said = await graph.refused(asked)
            assert status == 400
            assert reason in said["Message"]
            assert "containers are a, b" in said["Message"]

    run_story(story())


def test_a_streamed_answer_is_the_whole_one_as_one_piece() -> None:
    async def story() -> None:
        async with serial().backend.stream(invocation(b"whole")) as scored:
            assert [piece async for piece in scored.pieces] == [b"whole"]
        graph = serial()
        graph.a.status = 500
        with pytest.raises(Refusal):
            async with graph.backend.stream(invocation()):
                pass

    run_story(story())


async def streamed(graph: Story, asked: Invocation | None = None) -> list[bytes]:
    async with graph.backend.stream(asked or invocation()) as scored:
        return [piece async for piece in scored.pieces]


def test_the_last_containers_pieces_are_passed_on_as_they_come_and_let_go_at_the_end() -> None:
    async def story() -> None:
        graph = serial()
        graph.a.pieces = graph.b.pieces = [b"one", b"two"]
        assert await streamed(graph) == [b"one", b"two"]
        assert graph.a.streams == []
        assert [stream.is_closed for stream in graph.b.streams] == [True]
        async with graph.backend.stream(invocation()) as scored:
            assert await anext(scored.pieces) == b"one"
        assert [stream.is_closed for stream in graph.b.streams] == [True, True]

    run_story(story())


def test_a_stream_that_breaks_off_names_its_container() -> None:
    async def story() -> None:
        graph = direct()
        graph.b.pieces = [b"one", NoAnswer("it closed the connection")]
        with pytest.raises(StreamBroken, match="container b: the model broke off: it closed the connection"):
            await streamed(graph, naming("b"))

    run_story(story())


def test_an_error_before_the_stream_is_the_containers_own_with_its_step_and_log() -> None:
    async def story() -> None:
        graph = serial()
        graph.b.status = 507
        with pytest.raises(Refusal) as caught:
            await streamed(graph)
        said = json.loads(caught.value.answer.body)
        assert said["Message"].startswith("Step root/b (container b): Received server error (507)")
        assert (said["OriginalStatusCode"], said["LogStreamArn"]) == (507, "arn")

    run_story(story())


def test_an_answer_that_no_container_gave_as_it_is_is_one_piece() -> None:
    async def story() -> None:
        steps = [{"ContainerHostname": name} for name in "ab"]
        graph = Story(parse_graph({"Nodes": {"root": {"RouterType": "Ensemble", "Steps": steps}}}))
        graph.a.pieces = graph.b.pieces = [b"one", b"two"]
        assert [json.loads(piece) for piece in await streamed(graph)] == [{"0": "x", "1": "x"}]

    run_story(story())
