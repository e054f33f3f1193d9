"""One request to a container whose answer is taken piece by piece, over a connection of its own.

What was read and not yet taken is bounded: a container whose pieces nobody takes has to wait with the next ones.
"""

from __future__ import annotations

import asyncio
from typing import Self

import httptools

from raymaker.serving.errors import NoAnswer, NothingSent

READ_BYTES = 64 * 1024
"""The largest piece, and half of what is read ahead at most."""
CONNECT_TIMEOUT_S = 1.0
"""Long for a machine's own bridge. The address of a container that is gone answers nothing at all."""


class AnswerStream:
    """A container's answer while it comes. Header names are in lower case. Close it, whatever happens.

    The methods `on_*` are what httptools' parser calls.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._is_begun = False
        self._is_whole = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connect to a container. Raises NothingSent."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return cls(*await asyncio.open_connection(host, port, limit=READ_BYTES))
        except OSError as error:  # TimeoutError is one
            raise NothingSent(f"no connection to {host}:{port}: {error!r}") from error

    async def begin(self, head: bytes, body: bytes) -> None:
        """Send the request and wait for the header of its answer. Raises NoAnswer."""
        self._writer.write(head)
        self._writer.write(body)  # not waited for: an answer may come before the container has read everything
        while not self._is_begun:
            await self._read()

    async def next_piece(self) -> bytes | None:
        """Return what came since the last piece, or comes next; None at the answer's end. Raises NoAnswer."""
        while not self._body:
            if self._is_whole:
                return None
            await self._read()
        piece = b"".join(self._body)
        self._body.clear()
        return piece

    def close(self) -> None:
        """Drop the connection at once, so that a container that is still speaking can notice."""
        self._writer.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin, unless this is an interim answer."""
        self.status = self._parser.get_status_code()
        self._is_begun = self.status >= 200  # noqa: PLR2004 - 100 Continue and its like come before the answer
        if not self._is_begun:
            self.headers = []

    def on_body(self, piece: bytes) -> None:
        """Keep one piece until it is taken."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """End, unless this was an interim answer."""
        self._is_whole = self._is_begun

    async def _read(self) -> None:
        try:
            data = await self._reader.read(READ_BYTES)
            if data:
                self._parser.feed_data(data)
        except OSError as error:
            raise NoAnswer(f"its connection was lost: {error}") from error
        except httptools.HttpParserError as error:
            raise NoAnswer(f"what it sent is no HTTP: {error}") from error
        if not data:
            self._end()

    def _end(self) -> None:
        """Take the end of the connection: the answer's own end where it has no length. Raises NoAnswer."""
        has_length = any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers)
        if not self._is_begun or has_length:
            raise NoAnswer("it closed the connection before its answer was whole")
        self._is_whole = True
