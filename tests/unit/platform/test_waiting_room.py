"""Requests that are held until their endpoint has woken: passed on, refused, given up."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from raymaker.platform import transitions
from raymaker.platform.database import hosting
from raymaker.platform.hosting import sleep, waiting_room
from raymaker.platform.hosting.waiting_room import ClientGone, WaitingRoom, find_sleeper
from raymaker.platform.hosting.way_in import HeldRequest, RouteMissing, Send
from raymaker.platform.operations.registry import Context
from raymaker.platform.records import Deployment, EndpointStatus, ResolvedContainer, ResolvedVariant, SleepStage
from support.frontend import make_context

SERVERLESS = {"VariantName": "v", "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2}}


class Way:
    """The way to endpoints: open once `opens_after` looks were in vain, and then it says what it was given."""

    def __init__(self, opens_after: int = 0) -> None:
        self.looks = 0
        self.opens_after = opens_after
        self.passed: list[HeldRequest] = []
        self.missing_count = 0
        self.on_look: Callable[[], None] = lambda: None

    async def is_open(self, name: str) -> bool:
        self.looks += 1
        self.on_look()
        return self.looks > self.opens_after

    async def pass_on(self, request: HeldRequest, send: Send) -> None:
        if self.missing_count:
            self.missing_count -= 1
            raise RouteMissing
        self.passed.append(request)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": request.body})


class House:
    """A sleeping endpoint `e`, the room, and the way."""

    def __init__(self, context: Context, way: Way, threads: ThreadPoolExecutor) -> None:
        self.context, self.way = context, way
        self.room = WaitingRoom(context, way, threads, pause=lambda _: asyncio.sleep(0))
        desired = Deployment("c", (ResolvedVariant(SERVERLESS, "m", (ResolvedContainer("i"),)),))
        record = transitions.create_endpoint("e", "arn:e", "0", desired, 1.0)
        asleep = dataclasses.replace(
            record, status=EndpointStatus.IN_SERVICE, deployed=desired, sleep=SleepStage.ASLEEP
        )
        with context.database.transaction() as connection:
            assert hosting.insert_endpoint(connection, asleep)

    def record(self) -> Any:
        with self.context.database.reading() as connection:
            return hosting.find_endpoint(connection, "e")

    def move(self, **changes: Any) -> None:
        with self.context.database.transaction() as connection:
            hosting.move_endpoint(connection, "e", lambda record: dataclasses.replace(record, **changes))

    async def ask(self, body: bytes = b"x", *, leaves: bool = False) -> tuple[int, Any]:
        """The status and body of what is answered to one request."""
        messages = [{"type": "http.request", "body": body}, *([{"type": "http.disconnect"}] if leaves else [])]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not messages:
                await asyncio.Event().wait()
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"method": "POST", "path": "/endpoints/e/invocations", "headers": [(b"accept", b"a/b")]}
        found = find_sleeper(self.context, scope)
        assert found is not None
        answer = await self.room.answer(found, scope, receive, send)
        if answer is not None:
            return int(answer.status), json.loads(answer.body)
        return sent[0]["status"], sent[1]["body"]


@pytest.fixture
def house(home, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(waiting_room, "LOOK_PAUSE_S", 0.0)
    context = make_context(home)
    context.database.migrate()
    with ThreadPoolExecutor(2) as threads:
        yield House(context, Way(), threads)
    context.database.dispose()


def test_a_request_wakes_its_endpoint_and_is_passed_on_as_it_came(house: House) -> None:
    house.way.opens_after = 3
    assert asyncio.run(house.ask(b"body")) == (200, b"body")
    assert house.record().sleep is SleepStage.WAKING
    assert house.context.cluster.wake_count == 1
    (passed,) = house.way.passed
    assert (passed.method, passed.target, passed.headers) == (
        "POST",
        "/endpoints/e/invocations",
        ((b"accept", b"a/b"),),
    )


def test_many_at_once_wake_it_once_and_all_are_answered(house: House) -> None:
    async def story() -> list[tuple[int, Any]]:
        return await asyncio.gather(*(house.ask(str(number).encode()) for number in range(5)))

    house.way.opens_after = 2
    assert asyncio.run(story()) == [(200, str(number).encode()) for number in range(5)]
    assert house.context.cluster.wake_count == 1


def test_a_request_that_nobody_has_seen_is_passed_on_again(house: House) -> None:
    house.way.missing_count = 2
    assert asyncio.run(house.ask()) == (200, b"x")


def test_one_that_does_not_wake_says_why_to_all_who_wait(house: House) -> None:
    def fail_to_wake() -> None:
        assert house.record().sleep is SleepStage.WAKING
        house.move(sleep=SleepStage.FALLING_ASLEEP, failure_reason="It did not wake: no such image")
        house.way.on_look = lambda: None

    house.way.opens_after, house.way.on_look = 10_000, fail_to_wake
    status, said = asyncio.run(house.ask())
    assert status == 424
    assert "It did not wake: no such image" in said["Message"]


def test_who_leaves_is_given_up(house: House) -> None:
    house.way.opens_after = 10_000
    with pytest.raises(ClientGone):
        asyncio.run(house.ask(leaves=True))


def test_the_room_is_bounded_in_requests_and_in_bytes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_room, "MOST_HELD_BYTES", 3)
    status, said = asyncio.run(house.ask(b"four"))
    assert (status, said["Message"]) == (503, "Too much waits for endpoints to wake. Try again shortly.")
    monkeypatch.setattr(waiting_room, "MOST_HELD", 0)
    status, said = asyncio.run(house.ask())
    assert (status, said["Message"]) == (503, "0 requests wait already. Try again shortly.")
    assert (house.room._held_count, house.room._held_bytes) == (0, 0)


def test_a_body_over_the_endpoints_limit_is_refused_before_it_wakes(house: House) -> None:
    limited = {**SERVERLESS, "MaxPayloadInBytes": 2}
    house.move(desired=Deployment("c", (ResolvedVariant(limited, "m", (ResolvedContainer("i"),)),)))
    assert asyncio.run(house.ask(b"three"))[0] == 413
    assert house.record().sleep is SleepStage.ASLEEP


@pytest.mark.parametrize(
    ("changes", "is_held"),
    [
        ({}, True),
        ({"sleep": None}, True),
        ({"status": EndpointStatus.DELETING}, False),
        ({"status": EndpointStatus.UPDATING}, True),
        ({"status": EndpointStatus.UPDATING, "sleep": None}, True),
        ({"status": EndpointStatus.ROLLING_BACK, "sleep": None}, True),
        ({"status": EndpointStatus.CREATING, "sleep": None, "deployed": None}, False),
        ({"status": EndpointStatus.UPDATING, "sleep": None, "deployed": None}, False),
        ({"status": EndpointStatus.FAILED, "sleep": None}, False),
    ],
)
def test_only_what_has_been_in_service_is_waited_for(house, changes, is_held):
    house.move(**changes)
    scope = {"path": "/endpoints/e/invocations", "headers": []}
    assert (find_sleeper(house.context, scope) is not None) is is_held
    marked = {**scope, "headers": [(b"x-raymaker-woken", b"1")]}
    assert find_sleeper(house.context, marked) is None
    assert find_sleeper(house.context, {**scope, "path": "/endpoints/nobody/invocations"}) is None


def test_an_endpoint_that_woke_meanwhile_is_not_woken_again(house: House) -> None:
    house.move(sleep=None)
    assert asyncio.run(house.ask()) == (200, b"x")
    assert house.context.cluster.wake_count == 0
    assert sleep.wake_up(house.record()) == house.record()
