"""A forwarder that looks on for the answers of a quick container, on real sockets and on both kinds of event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from raymaker.serving import forward
from raymaker.serving.errors import NoAnswer
from raymaker.serving.forward import ContainerAnswer, Forwarder

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LONG_S = 20.0
"""Longer than any of these answers takes: whoever looks on so long does not sleep in between."""

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


class Container:
    """A server that answers each request of a connection as it was told: bytes to send, and seconds to wait.

    Then it closes the connection. It takes as many as it is told.
    """

    def __init__(self, *answers: list[bytes | float], connections: int = 1) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = list(answers)
        self._threads = [threading.Thread(target=self._serve) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._listener.getsockname()
        return host, port

    def end(self) -> None:
        """Wait until it has answered all that it was told to."""
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with self._listener.accept()[0] as connection:
            connection.settimeout(60)
            for answer in self._answers:
                if not connection.recv(65_536):
                    return
                for part in answer:
                    if isinstance(part, bytes):
                        connection.sendall(part)
                    else:
                        time.sleep(part)


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a story in an event loop of one kind or the other."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run_story(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(story())

    return run_story


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every container is a quick one, and is looked at for as long as it takes, however slow this machine is."""
    monkeypatch.setattr(forward, "QUICK_S", LONG_S)
    monkeypatch.setattr(forward, "LOOK_ON_S", LONG_S)


async def ask(forwarder: Forwarder, timeout_s: float = LONG_S) -> tuple[ContainerAnswer, bool]:
    """Ask once; the answer, and whether the event loop did anything else meanwhile."""
    others: list[bool] = []
    asyncio.get_running_loop().call_soon(others.append, True)
    answer = await forwarder.request("POST", "/invocations", [(b"accept", b"*/*")], b"x", timeout_s=timeout_s)
    return answer, bool(others)


def test_the_first_answer_is_slept_for_and_those_after_a_quick_one_are_looked_at(run: Run) -> None:
    container = Container([WHOLE], [WHOLE], [0.02, WHOLE])

    async def story() -> None:
        forwarder = Forwarder(*container.address)
        seen = [await ask(forwarder) for _ in range(3)]
        assert [(answer.status, answer.body) for answer, _ in seen] == [(200, b"ok")] * 3
        assert [slept for _, slept in seen] == [True, False, False]
        forwarder.close()

    run(story)
    container.end()


def test_an_answer_in_pieces_is_put_together(run: Run) -> None:
    container = Container([WHOLE], [WHOLE[:9], 0.02, WHOLE[9:-1], 0.02, WHOLE[-1:]])

    async def story() -> None:
        forwarder = Forwarder(*container.address)
        await ask(forwarder)
        answer, slept = await ask(forwarder)
        assert (answer.status, answer.body, slept) == (200, b"ok", False)
        forwarder.close()

    run(story)
    container.end()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(WHOLE[:-1], "closed the connection before its answer was whole", id="ends in the middle"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP", id="another protocol"),
    ],
)
def test_what_is_no_whole_answer_is_none(run: Run, sent: bytes, reason: str) -> None:
    container = Container([WHOLE], [sent])

    async def story() -> None:
        forwarder = Forwarder(*container.address)
        await ask(forwarder)
        with pytest.raises(NoAnswer, match=reason):
            await ask(forwarder)
        forwarder.close()

    run(story)
    container.end()


def test_an_answer_that_ends_with_its_connection_is_whole(run: Run) -> None:
    container = Container([WHOLE], [b"HTTP/1.1 200 OK\r\n\r\nto the end"])

    async def story() -> None:
        forwarder = Forwarder(*container.address)
        await ask(forwarder)
        answer, _ = await ask(forwarder)
        assert answer.body == b"to the end"
        forwarder.close()

    run(story)
    container.end()


def test_whoever_looks_in_vain_sleeps_and_looks_no_more_at_a_slow_container(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "LOOK_ON_S", 0.001)
    container = Container([WHOLE], [0.2, WHOLE], [WHOLE])

    async def story() -> None:
        forwarder = Forwarder(*container.address)
        await ask(forwarder)
        monkeypatch.setattr(forward, "QUICK_S", 0.1)
        assert (await ask(forwarder))[1]
        monkeypatch.setattr(forward, "LOOK_ON_S", LONG_S)
        assert (await ask(forwarder))[1]
        forwarder.close()

    run(story)
    container.end()


def test_an_answer_that_is_too_late_is_given_up_though_it_was_looked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "LOOK_ON_S", 0.001)
    container = Container([WHOLE], [0.5])

    async def story() -> None:
        forwarder = Forwarder(*container.address)
        await ask(forwarder)
        with pytest.raises(TimeoutError):
            await ask(forwarder, timeout_s=0.05)
        forwarder.close()

    run(story)
    container.end()


def test_nobody_looks_on_while_another_request_is_under_way(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    container = Container([WHOLE], [0.2, WHOLE], connections=2)

    async def story() -> None:
        forwarder = Forwarder(*container.address)
        await asyncio.gather(ask(forwarder), ask(forwarder))
        monkeypatch.setattr(forward, "LOOK_ON_S", 0.001)
        other = asyncio.create_task(ask(forwarder))
        await asyncio.sleep(0)
        monkeypatch.setattr(forward, "LOOK_ON_S", LONG_S)
        assert (await ask(forwarder))[1]
        await other
        forwarder.close()

    run(story)
    container.end()
