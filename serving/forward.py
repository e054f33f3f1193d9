"""HTTP/1.1 to one scoring container, over a pool of connections of our own.

A general client costs three times as much per request (aiohttp 0.33 ms, this 0.1 ms). This one knows what a container
needs and no more: no redirects, no TLS, no proxies. What is safe to try again is the caller's to decide, so every
failure says whether the container can have seen the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, cast

import httptools

from raymaker.serving.answer_stream import CONNECT_TIMEOUT_S, AnswerStream
from raymaker.serving.errors import NoAnswer, NothingSent

REUSE_WITHIN_S = 1.0
"""An idle connection older than this is not used again: servers close theirs after 2 s (gunicorn) or more, and a
request that meets a closing connection is lost in a way that nobody can safely try again."""
ANSWER_LIMIT_BYTES = 100 * 1024 * 1024
QUICK_S = 500e-6
"""A container that answered the last request within this time is a quick one."""
LOOK_ON_S = 200e-6
"""How long a request looks on for its answer, where the container is a quick one and has no other request. To sleep and
to be woken takes longer than such a container: an exchange takes 40 us looked on, 120 us slept through."""
READ_BYTES = 65_536


class ContainerAnswer(NamedTuple):
    """A container's answer. Header names are in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    log_stream_arn: str = ""
    """Where the log of the container is read, where that is one of many."""
    pieces: AsyncIterator[bytes] | None = None
    """A good answer that is still coming, in place of its body."""


class Forwarder:
    """A pool of connections to one container. Belongs to one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._host_line = f"host: {host}:{port}\r\n".encode()
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._busy: set[_Connection] = set()
        self._streams: set[AnswerStream] = set()
        self._is_quick = False
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        *,
        timeout_s: float | None = None,
    ) -> ContainerAnswer:
        """Send one request and return the whole answer. Raises NothingSent, NoAnswer; TimeoutError where it is late.

        A caller that is cancelled or times out takes its connection along, so that the container can notice.
        """
        connection = self._take_idle() or await self._connect()
        reusable = False
        # asyncio.timeout costs several times as much, as it ends whatever is under way; here that is one answer.
        late = None if timeout_s is None else asyncio.get_running_loop().call_later(timeout_s, connection.give_up)
        self._busy.add(connection)
        try:
            coming = connection.exchange(self._head(method, path, headers, len(body)), body)
            sent_at = time.perf_counter()
            if self._is_quick and len(self._busy) == 1:
                connection.look_on(sent_at + LOOK_ON_S)
            answer = await coming
            self._is_quick = time.perf_counter() - sent_at < QUICK_S
            reusable = connection.reusable
        finally:
            if late is not None:
                late.cancel()
            self._busy.discard(connection)
            if reusable and not self._closed:
                self._idle.append((time.monotonic(), connection))
            else:
                connection.close()
        return answer

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b""
    ) -> AsyncIterator[AnswerStream]:
        """Send one request and yield its answer once it begins. Raises NothingSent, NoAnswer.

        It has a connection of its own, which ends with the block.
        """
        stream = await AnswerStream.open(self._host, self._port)
        self._streams.add(stream)
        try:
            await stream.begin(self._head(method, path, headers, len(body)), body)
            yield stream
        finally:
            self._streams.discard(stream)
            stream.close()

    def close(self) -> None:
        """Close every connection: the container is gone, and what waits for it gets NoAnswer."""
        self._closed = True
        for stream in self._streams:
            stream.close()
        while self._idle:
            self._idle.pop()[1].close()
        for connection in self._busy:
            connection.close()

    def _take_idle(self) -> _Connection | None:
        """Return the connection used last. What is too old lies at the other end, and is closed from there."""
        oldest_allowed = time.monotonic() - REUSE_WITHIN_S
        while self._idle and self._idle[0][0] < oldest_allowed:
            self._idle.popleft()[1].close()
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.reusable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        except OSError as error:  # TimeoutError is one
            raise NothingSent(f"no connection to {self._host}:{self._port}: {error!r}") from error
        return connection

    def _head(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], body_bytes: int) -> bytes:
        lines = b"".join([b"%s: %s\r\n" % header for header in headers])
        length = b"content-length: %d\r\n" % body_bytes if body_bytes or method == "POST" else b""
        return b"%s %s HTTP/1.1\r\n%s%s%s\r\n" % (method.encode(), path.encode(), self._host_line, lines, length)


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. The methods `on_*` are what httptools' parser calls."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[ContainerAnswer] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._headers_done = False
        self._keep_alive = True
        self._descriptor = -1
        self._arrivals = select.poll()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self._keep_alive and self._transport is not None and not self._transport.is_closing()

    def exchange(self, head: bytes, body: bytes) -> asyncio.Future[ContainerAnswer]:
        """Send a request; the future holds its answer, or NoAnswer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._body, self._body_bytes, self._headers_done = [], [], 0, False
        if self._transport is None:
            raise RuntimeError("the connection was not made")
        self._transport.write(head + body if len(body) < 65_536 else head)  # noqa: PLR2004 - one packet for small ones
        if len(body) >= 65_536:  # noqa: PLR2004
            self._transport.write(body)
        return self._answer

    def look_on(self, until: float) -> None:
        """Take in what arrives without sleeping, with the whole event loop, until `time.perf_counter()` is `until`.

        What ends the connection is left to the transport to find.
        """
        while self._answer is not None and time.perf_counter() < until:
            if self._arrivals.poll(0):
                try:
                    data = os.read(self._descriptor, READ_BYTES)
                except OSError:
                    return
                if not data:
                    return
                self.data_received(data)

    def give_up(self) -> None:
        """Wait no longer for the answer, which becomes a TimeoutError."""
        self._fail(TimeoutError())

    def close(self) -> None:
        """Drop the connection at once."""
        self._keep_alive = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's, in Serve, is one only by its methods
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._arrivals.register(self._descriptor, select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._parser is None:
            self.close()  # it speaks without having been asked: whatever this is, it answers no request of ours
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(NoAnswer(f"what it sent is no HTTP: {error}"))

    def eof_received(self) -> None:
        """A body without a length ends with its connection."""
        if self._headers_done and self._answer is not None and not self._length_known():
            self._keep_alive = False
            self.on_message_complete()

    def connection_lost(self, error: Exception | None) -> None:
        self._keep_alive = False
        self._fail(NoAnswer(f"it closed the connection before its answer was whole ({error or 'end of stream'})"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._headers_done = True

    def on_body(self, piece: bytes) -> None:
        self._body_bytes += len(piece)
        if self._body_bytes > ANSWER_LIMIT_BYTES:
            self._fail(NoAnswer(f"its answer is larger than {ANSWER_LIMIT_BYTES} bytes"))
        else:
            self._body.append(piece)

    def on_message_complete(self) -> None:
        if self._answer is None or self._parser is None or self._answer.done():
            return
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - 100 Continue and its like come before the answer
            self._headers, self._headers_done = [], False
            return
        self._keep_alive = self._keep_alive and self._parser.should_keep_alive()
        self._answer.set_result(ContainerAnswer(status, self._headers, b"".join(self._body)))
        self._answer = None

    def _length_known(self) -> bool:
        return any(name in {b"content-length", b"transfer-encoding"} for name, _ in self._headers)

    def _fail(self, why: NoAnswer | TimeoutError) -> None:
        answer, self._answer = self._answer, None
        self.close()
        if answer is not None and not answer.done():
            answer.set_exception(why)
