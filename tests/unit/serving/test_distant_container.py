"""A container that has a fleet of its own: its answers, its refusals, and what Serve raises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
from ray.serve.exceptions import BackPressureError

from raymaker.serving import runtime_wire as wire
from raymaker.serving.backend import Invocation, Scored
from raymaker.serving.distant_container import DistantContainer
from raymaker.serving.fleet_handle import Piece
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.document import serial_graph
from raymaker.serving.local_graph import LocalGraph
from raymaker.serving.runtime_wire import Refusal, WireAnswer
from raymaker.serving.spec import GraphSpec
from support.graphs import run_story


class FakeFleet:
    """A fleet that answers with one thing, or raises it, or hangs where there is none."""

    def __init__(self, outcome: Scored | WireAnswer | Exception | None) -> None:
        self.outcome = outcome
        self.heard: list[Invocation] = []

    async def invoke(self, invocation: Invocation) -> Scored | WireAnswer:
        self.heard.append(invocation)
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    def stream(self, invocation: Invocation) -> AsyncGenerator[Piece]:
        raise NotImplementedError


async def ask(fleet: FakeFleet) -> ContainerAnswer:
    return await DistantContainer("b", fleet).ask([(b"accept", b"x/y")], b"x", timeout_s=5.0)


def test_the_fleets_answer_is_the_containers_whatever_its_status() -> None:
    fleet = FakeFleet(Scored(418, [(b"content-type", b"t")], b"y", "v.b", "arn"))
    assert run_story(ask(fleet)) == ContainerAnswer(418, [(b"content-type", b"t")], b"y", "arn")
    assert fleet.heard == [Invocation([(b"accept", b"x/y")], b"x", 5.0)]


def test_its_error_in_a_graph_names_the_log_of_the_one_that_answered() -> None:
    async def story() -> None:
        both = {name: DistantContainer(name, FakeFleet(Scored(500, [], b"no", "v.b", "its arn"))) for name in "ab"}
        spec = GraphSpec({}, serial_graph(["a", "b"]))
        with pytest.raises(Refusal) as caught:
            await LocalGraph("v", spec, both, timeout_s=5.0).invoke(Invocation([], b"x"))
        said = json.loads(caught.value.answer.body)
        assert (said["OriginalStatusCode"], said["LogStreamArn"]) == (500, "its arn")

    run_story(story())


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (wire.not_ready("it is being replaced"), 429, "it is being replaced"),
        (BackPressureError(1, 1), 503, "container b has too many requests"),
        (None, 424, "container b took too long"),
    ],
)
def test_one_that_gives_no_answer_is_a_refusal(outcome: WireAnswer | Exception | None, status: int, said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        run_story(ask(FakeFleet(outcome)))
    assert caught.value.answer.status == status
