"""When a replica's containers rest, and that one request starts all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from raymaker.serving import resting
from raymaker.serving.activity import Load
from raymaker.serving.resting import Rest


class Container:
    """One that rests and rises when it is told to, or says that it cannot."""

    def __init__(self, *, fails: bool = False) -> None:
        self.wake: Callable[[], None] | None = None
        self.rise_count = 0
        self.fails = fails

    def rest(self, wake: Callable[[], None]) -> Awaitable[None]:
        self.wake = wake
        return self._end()

    async def _end(self) -> None:
        if self.fails:
            raise OSError("the engine is away")

    async def rise(self) -> None:
        self.rise_count += 1
        self.wake = None


class Replica:
    """A replica with two containers, and the time."""

    def __init__(self, *containers: Container) -> None:
        self.now = 1000.0
        self.pending = 0
        self.load = Load(lambda: self.now)
        self.on_look: Callable[[], None] = lambda: None
        self.rest = Rest(containers, self.load, self.look, 10.0)  # type: ignore[arg-type]

    def look(self) -> int:
        self.on_look()
        return self.pending

    async def looks(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _looks_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "report_period_s", lambda _: 0.0)


def test_containers_rest_when_nobody_has_asked_for_long_and_all_rise_for_whoever_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        one, other = Container(), Container()
        replica = Replica(one, other)
        monkeypatch.setattr(resting.time, "time", lambda: replica.now)
        replica.now += 9
        await replica.looks()
        assert one.wake is None
        replica.pending, replica.now = 1, 1011.0
        await replica.looks()
        replica.pending = 0
        assert one.wake is None, "it was busy just now"
        replica.now += 9
        await replica.looks()
        assert one.wake is None
        replica.now += 1
        await replica.looks()
        assert one.wake is not None
        assert other.wake is not None
        wake = one.wake
        replica.load.touch()
        wake()
        await replica.looks()
        assert (one.rise_count, other.rise_count, one.wake) == (1, 1, None)
        replica.rest.stop()

    asyncio.run(story())


def test_nothing_comes_between_the_look_and_the_rest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        one, other = Container(), Container()
        replica = Replica(one, other)
        seen: list[bool] = []

        def next_is_a_request() -> None:
            asyncio.get_running_loop().call_soon(lambda: seen.append(None not in (one.wake, other.wake)))

        replica.on_look = next_is_a_request
        monkeypatch.setattr(resting.time, "time", lambda: replica.now)
        replica.now += 10
        await replica.looks()
        assert seen[0], "whoever asks right after the look finds both at rest"
        replica.rest.stop()

    asyncio.run(story())


def test_one_that_cannot_rest_does_not_keep_the_others_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        one, other = Container(fails=True), Container()
        replica = Replica(one, other)
        monkeypatch.setattr(resting.time, "time", lambda: replica.now)
        replica.now += 10
        await replica.looks()
        assert other.wake is not None
        assert not replica.rest._watching.done(), "it goes on to look"
        replica.rest.stop()

    asyncio.run(story())
