"""A client that leaves ends the work for it, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from raymaker.serving import leaving
from raymaker.serving.leaving import ClientGone, WhileClientStays


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "LISTEN_AFTER_S", 0)


class Client:
    """Leaves when it is told to. Its body may still have an empty piece to come."""

    def __init__(self) -> None:
        self.asked_count = 0
        self._gone = asyncio.Event()

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> dict[str, Any]:
        self.asked_count += 1
        if self.asked_count > 1:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b""}


async def turns() -> None:
    """Let everybody do what there is to do."""
    for _ in range(10):
        await asyncio.sleep(0)


Story = Callable[[Client], Coroutine[Any, Any, None]]


def told(story: Story) -> None:
    async def tell() -> None:
        await story(Client())
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 5)

    asyncio.run(tell())


def test_work_is_broken_off_when_its_client_leaves_and_whoever_asked_for_it_goes_on() -> None:
    @told
    async def story(client: Client) -> None:
        was_cancelled = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                was_cancelled.set()
                raise

        asyncio.get_running_loop().call_soon(client.leave)
        with pytest.raises(ClientGone):
            async with WhileClientStays(client.receive):
                await work()
        assert was_cancelled.is_set()
        await turns()  # would raise, were this task still to be cancelled


def test_short_work_listens_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "LISTEN_AFTER_S", 60)

    @told
    async def story(client: Client) -> None:
        async with WhileClientStays(client.receive):
            await turns()
        await turns()
        assert client.asked_count == 0


def test_a_client_that_stays_is_listened_to_until_the_work_ends() -> None:
    @told
    async def story(client: Client) -> None:
        async with WhileClientStays(client.receive):
            await turns()
        assert client.asked_count == 2
        client.leave()
        await turns()  # nobody is interested any more


def test_one_who_left_before_anybody_listened_is_missed_all_the_same() -> None:
    @told
    async def story(client: Client) -> None:
        client.leave()
        with pytest.raises(ClientGone):
            async with WhileClientStays(client.receive):
                await asyncio.Event().wait()


@pytest.mark.parametrize("error", [TimeoutError("the model took too long"), ValueError("no"), asyncio.CancelledError()])
def test_what_goes_wrong_with_the_work_itself_is_passed_on(error: BaseException) -> None:
    async def work(client: Client) -> None:
        async with WhileClientStays(client.receive):
            await turns()
            raise error

    @told
    async def story(client: Client) -> None:
        with pytest.raises(type(error)) as caught:
            await work(client)
        assert caught.value is error
