"""Payloads sent to a scoring container that may die meanwhile: how many at once, how often each, and who is to blame.

Starts no container: it is told where one answers, and lets payloads wait while none does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

from raymaker.actors.scoring import Address
from raymaker.serving.errors import NoAnswer, NothingSent
from raymaker.serving.forward import ContainerAnswer, Forwarder
from raymaker.serving.transform.errors import CallFailed

PAUSE_S = 0.1
"""Before a payload is sent again, twice as long each time."""
CONNECT_PAUSE_S = 0.05
SHOWN_BYTES = 300
BAD_REQUEST, TOO_MANY_REQUESTS, SERVER_ERROR = 400, 429, 500
Headers = Sequence[tuple[bytes, bytes]]
Ask = Callable[[Forwarder], Awaitable[ContainerAnswer]]
"""One try at one payload. Raises NothingSent, NoAnswer."""


class ContainerGone(Exception):
    """There is no container any more and there will be none. Its cause says why."""


class Caller:
    """Sends payloads to one container. Belongs to one event loop.

    A payload that was under way when the container died is sent again alone among its like, so that one that kills the
    container takes no others along for good. `on_hung` is called where the container answers nobody.
    """

    def __init__(
        self,
        headers: Headers,
        *,
        concurrency: int,
        timeout_s: float,
        max_retries: int,
        on_hung: Callable[[], None],
        connect: Callable[[str, int], Forwarder] = Forwarder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.headers = headers
        self.address: Address | None = None
        """Where the container answers, None while none does."""
        self.answer_count = 0
        """Answers that the container gave, good or bad: as long as it grows, the container lives."""
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._slots = asyncio.Semaphore(concurrency)
        self._on_hung = on_hung
        self._connect = connect
        self._clock = clock
        self._answered_at = clock()
        self._suspects = asyncio.Lock()
        self._container: Forwarder | None = None
        self._changed = asyncio.Event()
        self._gone: Exception | None = None

    def set_container(self, address: Address | None) -> None:
        """Send payloads to `address` from now on, or let them wait."""
        self.address = address
        if self._container is not None:
            self._container.close()
        self._container = self._connect(*address) if address else None
        self._answered_at = self._clock()
        if address:
            self._changed.set()
        else:
            self._changed.clear()

    def give_up(self, reason: Exception) -> None:
        """Have every call fail: no container will answer any more."""
        self._gone = reason
        if self._container is not None:
            self._container.close()
        self._changed.set()

    async def send(self, body: bytes) -> bytes:
        """Have the container score a payload, and return its answer. Raises CallFailed, ContainerGone."""

        async def ask(container: Forwarder) -> ContainerAnswer:
            return await container.request("POST", "/invocations", self.headers, body)

        return (await self.call(ask)).body

    async def call(self, ask: Ask) -> ContainerAnswer:
        """Ask until there is a good answer, or until that is too often. Raises CallFailed, ContainerGone."""
        is_suspect = False
        trouble = ""
        for tried in range(self._max_retries + 1):
            if tried:
                await asyncio.sleep(PAUSE_S * 2 ** (tried - 1))
            async with self._suspects if is_suspect else contextlib.nullcontext(), self._slots:
                try:
                    answer = await self._ask_once(ask)
                except NoAnswer as error:
                    is_suspect, trouble = True, f"the container gave no answer: {error}"
                    continue
                except TimeoutError:
                    trouble = f"the container did not answer within {self._timeout_s:g} s (InvocationsTimeoutInSeconds)"
                    continue
            self.answer_count += 1
            self._answered_at = self._clock()
            if answer.status < BAD_REQUEST:
                return answer
            trouble = f"the container answered with status {answer.status}: {_show(answer.body)}"
            if answer.status < SERVER_ERROR and answer.status != TOO_MANY_REQUESTS:
                raise CallFailed(trouble)  # what was sent is wrong, and stays so
        raise CallFailed(f"{trouble}. It was tried {self._max_retries + 1} times (InvocationsMaxRetries)")

    async def container(self) -> Forwarder:
        """Return the way to the container, once there is one. Raises ContainerGone."""
        while self._gone is None:
            if self._container is not None:
                return self._container
            await self._changed.wait()
        raise ContainerGone from self._gone

    async def _ask_once(self, ask: Ask) -> ContainerAnswer:
        """Ask once. While no connection can be made the container has seen nothing, and that does not count."""
        while True:
            container = await self.container()
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await ask(container)
            except NothingSent:
                self._note_silence()
                await asyncio.sleep(CONNECT_PAUSE_S)
            except TimeoutError:
                self._note_silence()
                raise

    def _note_silence(self) -> None:
        """Have a container replaced that answered nobody for as long as one payload may take."""
        if self._clock() - self._answered_at >= self._timeout_s:
            self.set_container(None)
            self._on_hung()


def _show(body: bytes) -> str:
    return body[:SHOWN_BYTES].decode(errors="replace").strip() or "nothing"
