"""Calls to a container that fails, dies and comes back: who is tried again, how often, and who has to wait."""

from __future__ import annotations

import asyncio

import pytest

from raymaker.actors.errors import WorkError
from raymaker.serving.errors import NoAnswer, NothingSent
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.transform import calls
from raymaker.serving.transform.calls import Caller, ContainerGone
from raymaker.serving.transform.errors import CallFailed

ADDRESS = ("10.0.0.1", 8080)


class FakeContainer:
    """Echoes, unless it was told to do something else with a body."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.under_way: set[bytes] = set()
        self.most_under_way = 0
        self.deadly: set[bytes] = set()
        self.next: list[ContainerAnswer | Exception] = []
        self.headers: object = None

    def answer_next(self, *answers: int | Exception) -> None:
        self.next += [ContainerAnswer(it, [], b"no") if isinstance(it, int) else it for it in answers]

    async def request(self, method: str, path: str, headers: object, body: bytes) -> ContainerAnswer:
        assert (method, path) == ("POST", "/invocations")
        self.headers = headers
        self.seen.append(body)
        self.under_way.add(body)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        for _ in range(3):
            await asyncio.sleep(0)
        died = self.under_way & self.deadly
        self.under_way.discard(body)
        if died:
            raise NoAnswer("it died")
        answer = self.next.pop(0) if self.next else ContainerAnswer(200, [], body)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None: ...


class Bench:
    """A caller of a fake container, with a clock of its own."""

    def __init__(self, concurrency: int = 4, max_retries: int = 3) -> None:
        self.container = FakeContainer()
        self.hung_count = 0
        self.now = 0.0
        self.caller = Caller(
            [(b"accept", b"text/csv")],
            concurrency=concurrency,
            timeout_s=60,
            max_retries=max_retries,
            on_hung=self.hear_hung,
            connect=lambda *_: self.container,  # type: ignore[arg-type,return-value]
            clock=lambda: self.now,
        )
        self.caller.set_container(ADDRESS)

    def hear_hung(self) -> None:
        self.hung_count += 1


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PAUSE_S", 0.0)
    monkeypatch.setattr(calls, "CONNECT_PAUSE_S", 0.0)


def test_an_answer_comes_back_with_the_jobs_headers_sent():
    async def story() -> None:
        bench = Bench()
        assert await bench.caller.send(b"1") == b"1"
        assert bench.container.headers == [(b"accept", b"text/csv")]
        assert bench.caller.answer_count == 1

    asyncio.run(story())


def test_no_more_are_under_way_than_may_be():
    async def story() -> None:
        bench = Bench(concurrency=3)
        bodies = [b"%d" % number for number in range(20)]
        assert await asyncio.gather(*map(bench.caller.send, bodies)) == bodies
        assert bench.container.most_under_way == 3

    asyncio.run(story())


@pytest.mark.parametrize("trouble", [500, 503, 429, NoAnswer("gone"), TimeoutError()])
def test_what_may_pass_by_itself_is_tried_again(trouble):
    async def story() -> None:
        bench = Bench()
        bench.container.answer_next(trouble, trouble, trouble)
        assert await bench.caller.send(b"1") == b"1"
        assert len(bench.container.seen) == 4

    asyncio.run(story())


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(500, "status 500: no"), (NoAnswer("gone"), "no answer: gone"), (TimeoutError(), "within 60 s")],
)
def test_it_is_given_up_after_so_many_tries_and_told_why(trouble, said):
    async def story() -> None:
        bench = Bench(max_retries=1)
        bench.container.answer_next(trouble, trouble)
        with pytest.raises(CallFailed, match=rf"{said}.*tried 2 times \(InvocationsMaxRetries\)"):
            await bench.caller.send(b"1")

    asyncio.run(story())


@pytest.mark.parametrize("status", [400, 404, 415])
def test_what_is_sent_wrong_is_not_sent_again(status):
    async def story() -> None:
        bench = Bench()
        bench.container.answer_next(status)
        with pytest.raises(CallFailed, match=f"answered with status {status}: no"):
            await bench.caller.send(b"1")
        assert len(bench.container.seen) == 1

    asyncio.run(story())


def test_calls_wait_while_there_is_no_container_and_connections_that_fail_do_not_count():
    async def story() -> None:
        bench = Bench(max_retries=0)
        bench.container.answer_next(NothingSent("refused"), NothingSent("refused"))
        bench.caller.set_container(None)
        call = asyncio.create_task(bench.caller.send(b"1"))
        await asyncio.sleep(0)
        assert bench.container.seen == []
        bench.caller.set_container(ADDRESS)
        assert await call == b"1"

    asyncio.run(story())


def test_a_payload_that_kills_the_container_takes_no_others_along():
    async def story() -> None:
        bench = Bench(concurrency=4, max_retries=3)
        bench.container.deadly = {b"poison"}
        bodies = [b"1", b"2", b"poison", b"3", b"4", b"5"]
        answers = await asyncio.gather(*map(bench.caller.send, bodies), return_exceptions=True)
        assert [answer for answer in answers if isinstance(answer, bytes)] == [b"1", b"2", b"3", b"4", b"5"]
        assert isinstance(answers[2], CallFailed)

    asyncio.run(story())


def test_a_container_that_answers_nobody_is_said_to_hang_and_calls_wait_for_another():
    async def story() -> None:
        bench = Bench()
        bench.now = 61.0
        bench.container.answer_next(TimeoutError())
        call = asyncio.create_task(bench.caller.send(b"1"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert bench.hung_count == 1
        assert len(bench.container.seen) == 1
        bench.caller.set_container(ADDRESS)
        assert await call == b"1"

    asyncio.run(story())


def test_a_timeout_while_others_are_answered_hangs_nobody():
    async def story() -> None:
        bench = Bench()
        bench.now = 59.0
        bench.container.answer_next(TimeoutError())
        assert await bench.caller.send(b"1") == b"1"
        assert bench.hung_count == 0

    asyncio.run(story())


def test_once_the_container_is_given_up_every_call_fails_with_the_cause():
    async def story() -> None:
        bench = Bench()
        bench.caller.set_container(None)
        call = asyncio.create_task(bench.caller.send(b"1"))
        await asyncio.sleep(0)
        bench.caller.give_up(WorkError("it ended 20 times"))
        with pytest.raises(ContainerGone) as gone:
            await call
        assert str(gone.value.__cause__) == "it ended 20 times"

    asyncio.run(story())
