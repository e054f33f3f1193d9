"""The router: one variant answers, refusals and lost replicas become the wire's errors, shadows delay nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve.exceptions import BackPressureError, RayServeException

from raymaker.serving import runtime_wire as wire
from raymaker.serving import shadows as shadows_module
from raymaker.serving.activity import Load
from raymaker.serving.backend import Invocation, Scored, StreamBegins, StreamBreaks
from raymaker.serving.errors import StreamBroken
from raymaker.serving.router import Router
from raymaker.serving.runtime_wire import Refusal
from raymaker.serving.shadows import Comparison, Mirror, Tally
from raymaker.serving.variants import Route, TrafficTable


class FakeFleets:
    """Fleets that answer with their own name, or as they were told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, bytes]] = []
        self.answers: dict[str, Any] = {}
        self.held: dict[str, asyncio.Event] = {}

    def answer_with(self, fleet: str, answer: Any) -> None:
        self.answers[fleet] = answer

    def hold(self, fleet: str) -> asyncio.Event:
        self.held[fleet] = asyncio.Event()
        return self.held[fleet]

    def connect(self, fleet: str) -> Any:
        return FakeFleet(self, fleet)


class FakeFleet:
    """One of them. Its stream is its answer's body, byte by byte, or what it was told to answer with."""

    def __init__(self, fleets: FakeFleets, name: str) -> None:
        self._fleets = fleets
        self._name = name
        self.is_closed = False

    async def invoke(self, invocation: Invocation) -> Any:
        fleets, name = self._fleets, self._name
        fleets.seen.append((name, invocation.headers, invocation.body))
        if name in fleets.held:
            await fleets.held[name].wait()
        answer = fleets.answers.get(name, Scored(200, [], invocation.body, name.partition("@")[0]))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(self, invocation: Invocation) -> AsyncGenerator[Any]:
        try:
            pieces = self._fleets.answers.get(self._name, [StreamBegins(200, [], "a"), b"bo", b"dy"])
            for piece in pieces if isinstance(pieces, list) else [pieces]:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.is_closed = True


def route(variant: str, weight: float, timeout_s: float = 60.0) -> Route:
    return Route(variant, f"{variant}@1", weight, timeout_s)


def router(
    fleets: FakeFleets,
    *,
    shadow: float | None = None,
    number: float = 0.5,
    timeout_s: float = 60.0,
    load: Load | None = None,
) -> Router:
    """A router that sends all to `a`, and draws the same number always."""
    mirror = Mirror(on_comparison=lambda seen: None)
    made = Router(fleets.connect, mirror, load or Load(), draw=lambda: number)
    mirrored = (route("s", shadow),) if shadow is not None else ()
    made.set_table(TrafficTable((route("a", 1, timeout_s), route("b", 0)), mirrored))
    return made


def run(story: Awaitable[Any]) -> Any:
    async def whole() -> Any:
        return await story

    return asyncio.run(whole())


async def refusal(asked: Awaitable[Scored]) -> tuple[int, str, str]:
    with pytest.raises(Refusal) as caught:
        await asked
    answer = caught.value.answer
    return answer.status, dict(answer.headers)[b"x-amzn-errortype"].decode(), json.loads(answer.body)["Message"]


PLAIN = Invocation([(b"accept", b"*/*")], b"body")


def test_the_variant_that_takes_the_traffic_answers():
    fleets = FakeFleets()
    answer = run(router(fleets).invoke(PLAIN))
    assert (answer.variant, answer.body) == ("a", b"body")
    assert fleets.seen == [("a@1", PLAIN.headers, b"body")]


def test_the_variant_that_a_request_names_answers():
    wanted = Invocation([(wire.TARGET_VARIANT, b"b")], b"body")
    assert run(router(FakeFleets()).invoke(wanted)).variant == "b"


def test_a_new_table_counts_from_the_next_request_on():
    async def story() -> None:
        fleets = FakeFleets()
        asked = router(fleets)
        await asked.invoke(PLAIN)
        asked.set_table(TrafficTable((route("a", 0), route("b", 1))))
        await asked.invoke(PLAIN)
        assert [fleet for fleet, _, _ in fleets.seen] == ["a@1", "b@1"]

    run(story())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (wire.not_ready("wait"), (429, "ModelNotReadyException", "wait")),
        (ActorUnavailableError("gone", b"0" * 16), (424, "ModelError", "replica of variant a that worked on it ended")),
        (BackPressureError(1, 1), (503, "ServiceUnavailable", "variant a has too many requests")),
        (RayServeException("no such fleet"), (429, "ModelNotReadyException", "variant a cannot answer: no such fleet")),
    ],
)
def test_what_keeps_a_fleet_from_answering_is_told_as_the_wire_tells_it(answer, expected):
    fleets = FakeFleets()
    fleets.answer_with("a@1", answer)
    status, code, message = run(refusal(router(fleets).invoke(PLAIN)))
    assert (status, code) == expected[:2]
    assert expected[2] in message


def test_a_fleet_that_takes_too_long_is_a_model_error():
    async def story() -> None:
        fleets = FakeFleets()
        fleets.hold("a@1")
        status, code, message = await refusal(router(fleets, timeout_s=-30.0).invoke(PLAIN))
        assert (status, code) == (424, "ModelError")
        assert "variant a took too long" in message

    run(story())


def test_without_a_weight_above_0_nothing_answers_and_it_is_said_why():
    async def story() -> None:
        asked = router(FakeFleets())
        asked.set_table(TrafficTable((route("a", 0),)))
        assert (await refusal(asked.invoke(PLAIN)))[:2] == (503, "ServiceUnavailable")

    run(story())


def test_a_shadow_hears_the_same_request_after_the_answer_and_is_compared():
    async def story() -> None:
        fleets, seen = FakeFleets(), asyncio.Queue()
        fleets.answer_with("s@1", Scored(200, [], b"another", "s"))
        asked = router(fleets, shadow=1.0)
        asked._mirror = Mirror(on_comparison=seen.put_nowait)
        answer = await asked.invoke(PLAIN)
        assert (answer.variant, answer.body) == ("a", b"body")
        compared: Comparison = await seen.get()
        assert (compared.variant, compared.live.body, compared.agrees) == ("s", b"body", False)
        assert fleets.seen == [("a@1", PLAIN.headers, b"body"), ("s@1", PLAIN.headers, b"body")]
        assert asked._mirror.tallies["s"].heard == 1

    run(story())


def test_a_request_outside_a_shadows_share_is_not_copied():
    fleets = FakeFleets()
    run(router(fleets, shadow=0.5, number=0.5).invoke(PLAIN))
    assert [fleet for fleet, _, _ in fleets.seen] == ["a@1"]


def test_a_shadow_that_hangs_or_fails_keeps_no_client_waiting_and_what_is_too_much_is_left_out(monkeypatch):
    async def story() -> None:
        monkeypatch.setattr(shadows_module, "MOST_UNDER_WAY", 2)
        fleets, seen = FakeFleets(), asyncio.Queue()
        held = fleets.hold("s@1")
        fleets.answer_with("s@1", RuntimeError("broken"))
        asked = router(fleets, shadow=1.0)
        asked._mirror = Mirror(on_comparison=seen.put_nowait)
        for _ in range(5):
            assert (await asked.invoke(PLAIN)).variant == "a"
        held.set()
        assert [(await seen.get()).shadow for _ in range(2)] == [None, None]
        tally = asked._mirror.tallies["s"]
        assert (tally.heard, tally.failed, tally.left_out) == (2, 2, 3)

    run(story())


def test_a_tally_says_what_came_of_the_copies():
    answer = Scored(200, [], b"x", "a")
    tally = Tally()
    for shadow, shadow_s in ((answer, 0.003), (None, 0.005)):
        tally = tally.add(Comparison("s", PLAIN, answer, 0.001, shadow, shadow_s))
    assert tally.describe("s") == (
        "Shadow s heard 2 requests: 1 answered the same, 1 failed, 0 left out as too many at once, "
        "on average 4.0 ms for 1.0 ms"
    )


async def streamed(asked: Router) -> list[bytes]:
    async with asked.stream(PLAIN) as scored:
        return [piece async for piece in scored.pieces]


def test_a_streamed_answer_comes_piece_by_piece_from_the_variant_that_takes_the_traffic():
    fleets = FakeFleets()
    asked = router(fleets)
    assert run(streamed(asked)) == [b"bo", b"dy"]
    assert asked._fleets["a@1"].is_closed


def test_a_stream_that_cannot_begin_is_refused_and_one_that_breaks_off_says_so():
    fleets = FakeFleets()
    fleets.answer_with("a@1", wire.not_ready("it is being replaced"))
    with pytest.raises(Refusal, match="being replaced"):
        run(streamed(router(fleets)))
    fleets.answer_with("a@1", [ActorUnavailableError("gone", b"0" * 16)])
    with pytest.raises(Refusal, match="the replica of variant a that worked on it ended"):
        run(streamed(router(fleets)))
    fleets.answer_with("a@1", [StreamBegins(200, [], "a"), b"bo", StreamBreaks("StreamBroken", "it ended")])
    with pytest.raises(StreamBroken, match="it ended"):
        run(streamed(router(fleets)))
    fleets.answer_with("a@1", [StreamBegins(200, [], "a"), ActorUnavailableError("gone", b"0" * 16)])
    with pytest.raises(StreamBroken, match="the replica of variant a ended"):
        run(streamed(router(fleets)))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Scored(200, [], b"", "a"), (0, 0)),
        (Scored(404, [], b"", "a"), (1, 0)),
        (Scored(500, [], b"", "a"), (0, 1)),
        (wire.invalid("no such model", status=404), (1, 0)),
        (wire.too_large(5), (1, 0)),
        (wire.model_failed("it died", ""), (0, 1)),
        (wire.not_ready("starting"), (0, 1)),
        (wire.overloaded("full"), (0, 1)),
        (BackPressureError(1, 1), (0, 1)),
    ],
)
def test_it_is_counted_how_each_fleet_answers(answer, expected):
    fleets, load = FakeFleets(), Load()
    fleets.answers["a@1"] = answer
    asked = router(fleets, load=load)

    async def story() -> None:
        with contextlib.suppress(Refusal):
            await asked.invoke(PLAIN)

    run(story())
    (found,) = load.fleets().items()
    assert found[0] == "a@1"
    assert (found[1].count, found[1].client_errors, found[1].server_errors) == (1, *expected)


def test_streams_are_counted_as_they_begin():
    fleets, load = FakeFleets(), Load()

    async def story() -> None:
        async with router(fleets, load=load).stream(PLAIN) as scored:
            assert load.fleets()["a@1"].count == 1
            assert [piece async for piece in scored.pieces] == [b"bo", b"dy"]

    run(story())
    assert (load.fleets()["a@1"].count, load.fleets()["a@1"].server_errors) == (1, 0)
