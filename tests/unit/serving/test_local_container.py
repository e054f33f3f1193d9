"""The backend of one container: what it asks again, what it waits for, and when it gives up."""

from __future__ import annotations

import asyncio
import json

import pytest

from raymaker.serving.backend import Invocation
from raymaker.serving.errors import NoAnswer, NothingSent, StreamBroken
from raymaker.serving.local_container import LocalContainer
from raymaker.serving.runtime_wire import Refusal
from support.scoring import ADDRESS, FakeContainer, local_container

REQUEST = Invocation([(b"accept", b"*/*")], b"a")


async def refused(backend: LocalContainer) -> tuple[int, str, str]:
    """The error that an invocation ends with: status, code, message."""
    with pytest.raises(Refusal) as caught:
        await backend.invoke(REQUEST)
    answer = caught.value.answer
    code = dict(answer.headers)[b"x-amzn-errortype"].decode()
    return answer.status, code, json.loads(answer.body)["Message"]


def test_an_answer_says_whose_it_is_good_or_bad() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.status = 500
        scored = await local_container(container, variant="blue").invoke(REQUEST)
        assert (scored.status, scored.body, scored.variant, scored.log_stream_arn) == (500, b"a", "blue", "arn")
        assert container.seen == [("POST", "/invocations", [(b"accept", b"*/*")], b"a")]

    asyncio.run(story())


def test_a_container_that_takes_too_long_is_a_model_error() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.hold = asyncio.Event()
        status, code, message = await refused(local_container(container, timeout_s=0.0))
        assert (status, code) == (424, "ModelError")
        assert "longer than 0 s" in message

    asyncio.run(story())


def test_a_request_that_the_container_may_have_seen_is_not_sent_again() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.fail_next(NoAnswer("it closed the connection"))
        assert (await refused(local_container(container)))[:2] == (424, "ModelError")
        assert container.seen == []

    asyncio.run(story())


def test_a_request_that_no_container_has_seen_is_kept_for_the_next_one() -> None:
    async def story() -> None:
        dying, fresh = FakeContainer(), FakeContainer()
        coming = [dying, fresh]
        backend = local_container(None, connect=lambda *_: coming.pop(0))
        backend.set_container(ADDRESS)
        backend.set_container(None)
        assert dying.is_closed
        waiting = asyncio.create_task(backend.invoke(REQUEST))
        await asyncio.sleep(0)
        backend.set_container(ADDRESS)
        assert (await waiting).status == 200
        assert len(fresh.seen) == 1

    asyncio.run(story())


def test_whoever_asks_one_that_rests_wakes_it_and_waits_for_as_long_as_it_takes_to_start() -> None:
    async def story() -> None:
        coming = [FakeContainer(), FakeContainer()]
        backend = local_container(None, connect=lambda *_: coming.pop(0), ready_wait_s=0.0, rise_wait_s=60.0)
        backend.set_container(ADDRESS)
        woken: list[int] = []
        backend.rest(lambda: woken.append(1))
        assert not await backend.ping()
        assert not woken, "a look at its health wakes nobody"
        waiting = [asyncio.create_task(backend.invoke(REQUEST)) for _ in range(2)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert woken == [1], "once, however many ask"
        backend.set_container(ADDRESS)
        assert [(await each).status for each in waiting] == [200, 200]
        backend.set_container(None)
        assert (await refused(backend))[1] == "ModelNotReadyException", "it is no rest when it died"

    asyncio.run(story())


def test_without_a_container_for_long_the_model_is_not_ready() -> None:
    async def story() -> None:
        assert (await refused(local_container(None, ready_wait_s=0.0)))[:2] == (429, "ModelNotReadyException")

    asyncio.run(story())


def test_a_container_that_refuses_connections_for_long_is_not_ready() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.fail_next(NothingSent("refused"))
        assert (await refused(local_container(container, ready_wait_s=0.0)))[:2] == (429, "ModelNotReadyException")

    asyncio.run(story())


def test_a_stream_passes_pieces_on_and_ends_with_its_block() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.pieces = [b"one", b"two"]
        backend = local_container(container, variant="blue")
        async with backend.stream(REQUEST) as scored:
            assert [piece async for piece in scored.pieces] == [b"one", b"two"]
            assert (scored.status, scored.variant) == (200, "blue")
            assert not container.streams[0].is_closed
        assert container.streams[0].is_closed
        assert backend.answer_count == 3

    asyncio.run(story())


def test_a_stream_that_begins_with_an_error_is_a_model_error_with_its_words() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.status, container.pieces = 507, [b"no ", b"room", NoAnswer("gone")]
        with pytest.raises(Refusal) as caught:
            async with local_container(container).stream(REQUEST):
                pytest.fail("an error is no stream")
        told = json.loads(caught.value.answer.body)
        assert (told["OriginalStatusCode"], told["OriginalMessage"]) == (507, "no room")
        assert container.streams[0].is_closed

    asyncio.run(story())


def test_a_stream_that_falls_silent_or_breaks_off_says_which() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.pieces = [b"one", NoAnswer("it died")]
        async with local_container(container).stream(REQUEST) as scored:
            assert await anext(scored.pieces) == b"one"
            with pytest.raises(StreamBroken, match="it died") as broken:
                await anext(scored.pieces)
            assert broken.value.code == "StreamBroken"
        container.hold = asyncio.Event()
        backend = local_container(container, timeout_s=0.0)
        backend._timeout_s = 1e-9  # it has begun in time
        async with backend.stream(REQUEST) as scored:
            with pytest.raises(StreamBroken, match="silent") as broken:
                await anext(scored.pieces)
            assert broken.value.code == "ModelInvocationTimeExceeded"

    asyncio.run(story())


def test_a_ping_counts_as_a_sign_of_life_only_when_it_is_answered_with_200() -> None:
    async def story() -> None:
        container = FakeContainer()
        backend = local_container(container)
        assert await backend.ping()
        container.status = 503
        assert not await backend.ping()
        container.fail_next(NoAnswer("gone"))
        assert not await backend.ping()
        assert backend.answer_count == 1
        backend.set_container(None)
        assert not await backend.ping()

    asyncio.run(story())
