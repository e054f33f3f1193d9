"""The backend of a replica that owns one container: waits for it while it is replaced, asks again where that is safe.

Starts no container: it is told where one answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from raymaker.serving import runtime_wire as wire
from raymaker.serving.answer_stream import AnswerStream
from raymaker.serving.backend import Invocation, Scored, ScoredStream
from raymaker.serving.errors import NoAnswer, NothingSent, StreamBroken
from raymaker.serving.forward import ContainerAnswer, Forwarder
from raymaker.serving.runtime_wire import Headers, Refusal

T = TypeVar("T")

INVOCATIONS = "/invocations"
READY_WAIT_S = 30.0
"""How long a request waits for a container that is being replaced: longer than most take to start."""
RETRY_PAUSE_S = 0.05
PING_TIMEOUT_S = 2.0
ERROR_TEXT_BYTES = 8192
"""More than the characters that a client is told."""


class LocalContainer:
    """A Backend. `variant` and `log_stream_arn` say in answers whose container it is."""

    def __init__(
        self,
        variant: str,
        log_stream_arn: str,
        *,
        timeout_s: float,
        connect: Callable[[str, int], Forwarder] = Forwarder,
        ready_wait_s: float = READY_WAIT_S,
        rise_wait_s: float = READY_WAIT_S,
    ) -> None:
        self._variant = variant
        self.log_stream_arn = log_stream_arn
        self._timeout_s = timeout_s
        self._connect = connect
        self._wait_s = self._ready_wait_s = ready_wait_s
        self._rise_wait_s = rise_wait_s
        self._wake: Callable[[], None] | None = None
        self._container: Forwarder | None = None
        self._arrived = asyncio.Event()
        self.container_number = 0
        """Counts up with each container, which knows nothing of what the one before was told."""
        self.answer_count = 0
        """Answers that the container gave, pings included: as long as it grows, the container lives."""

    def set_container(self, address: tuple[str, int] | None) -> None:
        """Send requests to `address` from now on, or let them wait."""
        if self._container is not None:
            self._container.close()
        self._container = self._connect(*address) if address else None
        if address:
            self.container_number += 1
            self._wake, self._wait_s = None, self._ready_wait_s
            self._arrived.set()
        else:
            self._arrived.clear()

    @property
    def has_container(self) -> bool:
        """Whether there is a container to ask."""
        return self._container is not None

    def rest(self, wake: Callable[[], None]) -> None:
        """Have whoever asks wait for a container that `wake` starts. It is called once, for the first who does."""
        self.set_container(None)
        self._wake, self._wait_s = wake, self._rise_wait_s

    async def ping(self) -> bool:
        """Ask the container's /ping once."""
        if self._container is None:
            return False
        try:
            answer = await self._container.request("GET", "/ping", timeout_s=PING_TIMEOUT_S)
        except (TimeoutError, NoAnswer, NothingSent):
            return False
        self.answer_count += answer.status == 200  # noqa: PLR2004 - HTTP's OK
        return answer.status == 200  # noqa: PLR2004

    async def invoke(self, invocation: Invocation, path: str = INVOCATIONS) -> Scored:
        """Ask the container at `path`. Raises Refusal where it gives no answer."""
        answer = await self.request(
            "POST", path, invocation.headers, invocation.body, timeout_s=invocation.timeout_s or self._timeout_s
        )
        return Scored(answer.status, answer.headers, answer.body, self._variant, self.log_stream_arn)

    @contextlib.asynccontextmanager
    async def stream(self, invocation: Invocation, path: str = INVOCATIONS) -> AsyncIterator[ScoredStream]:
        """Ask the container at `path`, and pass its answer on as it comes. Raises Refusal before it begins.

        Its header may take as long as a whole answer elsewhere, and so may each piece.
        """
        async with contextlib.AsyncExitStack() as stack:

            async def begin(container: Forwarder) -> AnswerStream:
                async with asyncio.timeout(self._timeout_s):
                    return await stack.enter_async_context(
                        container.stream("POST", path, invocation.headers, invocation.body)
                    )

            answer = await self._ask(begin, self._timeout_s)
            if answer.status >= 400:  # noqa: PLR2004 - HTTP's errors
                raise Refusal(wire.model_error(answer.status, await self._said(answer), self.log_stream_arn))
            yield ScoredStream(answer.status, answer.headers, self._pieces(answer), self._variant)

    def ask(self, headers: Headers, body: bytes, *, timeout_s: float) -> Awaitable[ContainerAnswer]:
        """Have the container answer an invocation of a graph. Raises Refusal where it gives no answer."""
        return self.request("POST", INVOCATIONS, headers, body, timeout_s=timeout_s)

    def request(
        self, method: str, path: str, headers: Headers, body: bytes, *, timeout_s: float
    ) -> Awaitable[ContainerAnswer]:
        """Ask the container for anything. Raises Refusal where it gives no answer."""
        return self._ask(
            lambda container: container.request(method, path, headers, body, timeout_s=timeout_s), timeout_s
        )

    async def _pieces(self, answer: AnswerStream) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    piece = await answer.next_piece()
            except TimeoutError:
                reason = f"the model was silent for longer than {self._timeout_s:g} s in the middle of its answer"
                raise StreamBroken("ModelInvocationTimeExceeded", reason) from None
            except NoAnswer as error:
                raise StreamBroken("StreamBroken", f"the model broke off: {error}") from None
            if piece is None:
                return
            self.answer_count += 1
            yield piece

    async def _said(self, answer: AnswerStream) -> bytes:
        """Read as much of an error's text as is told to the client; one that breaks off is told as far as it came."""
        said = b""
        with contextlib.suppress(StreamBroken):
            async for piece in self._pieces(answer):
                said += piece
                if len(said) >= ERROR_TEXT_BYTES:
                    break
        return said

    async def _ask(self, operation: Callable[[Forwarder], Awaitable[T]], timeout_s: float) -> T:
        """Ask the container; where none has seen the request, ask again. `operation` holds the time limit."""
        patience = time.monotonic() + self._wait_s
        while True:
            container = self._container or await self._next_container(patience)
            try:
                answer = await operation(container)
            except NothingSent as error:
                if time.monotonic() >= patience:
                    raise self._not_ready(str(error)) from None
                await asyncio.sleep(RETRY_PAUSE_S)
            except TimeoutError:
                raise self._failed(f"it took longer than {timeout_s:g} s") from None
            except NoAnswer as error:
                raise self._failed(str(error)) from None
            else:
                self.answer_count += 1
                return answer

    async def _next_container(self, patience: float) -> Forwarder:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()
        try:
            async with asyncio.timeout(patience - time.monotonic()):
                while self._container is None:
                    await self._arrived.wait()
        except TimeoutError:
            raise self._not_ready("it is being replaced") from None
        return self._container

    def _failed(self, reason: str) -> Refusal:
        return Refusal(wire.model_failed(reason, self.log_stream_arn))

    def _not_ready(self, reason: str) -> Refusal:
        return Refusal(
            wire.not_ready(f"The scoring container of this replica is not ready: {reason}. Try again shortly.")
        )
