"""A whole object sent to a container in chunks, and its answer written as it comes: neither is kept in memory.

That is what MaxPayloadInMB 0 asks for. It costs more per request than `calls.py`'s payloads, and pays for large ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Self

import aiohttp

from raymaker.actors.errors import WorkError
from raymaker.serving.errors import NoAnswer, NothingSent
from raymaker.serving.forward import ContainerAnswer, Forwarder
from raymaker.serving.transform.calls import BAD_REQUEST, SHOWN_BYTES, Caller
from raymaker.serving.transform.errors import ObjectFailed

CHUNK_BYTES = 1024 * 1024


class Streamer:
    """Streams objects through the container of a `Caller`. Enter it to use it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def stream(self, opened: Callable[[], AbstractContextManager[IO[bytes]]], output: IO[bytes]) -> int:
        """Write the answer to what `opened` gives, from its start at each try; return how much was sent.

        Raises CallFailed, ContainerGone, and what reading raises.
        """
        sent = _Sent(opened)

        async def ask(_: Forwarder) -> ContainerAnswer:
            output.seek(0)
            output.truncate()
            return await self._ask(sent, output)

        await self._caller.call(ask)
        return sent.size_bytes

    async def _ask(self, sent: _Sent, output: IO[bytes]) -> ContainerAnswer:
        headers = [(name.decode(), value.decode()) for name, value in self._caller.headers]
        host, port = self._caller.address or ("", 0)
        url = f"http://{host}:{port}/invocations"
        try:
            async with self._session.post(url, data=sent.chunks(), headers=headers, allow_redirects=False) as answer:
                if answer.status >= BAD_REQUEST:
                    return ContainerAnswer(answer.status, [], await answer.content.read(SHOWN_BYTES))
                async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                    output.write(chunk)
                return ContainerAnswer(answer.status, [], b"")
        except aiohttp.ClientConnectorError as error:
            raise NothingSent(str(error)) from error
        except aiohttp.ClientError as error:
            if sent.trouble is not None:
                raise sent.trouble from error
            raise NoAnswer(str(error) or repr(error)) from error


class _Sent:
    """What one object sends, and what went wrong with reading it: the client tells only that it could not send."""

    def __init__(self, opened: Callable[[], AbstractContextManager[IO[bytes]]]) -> None:
        self._opened = opened
        self.size_bytes = 0
        self.trouble: WorkError | ObjectFailed | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        self.size_bytes = 0
        try:
            with self._opened() as source:
                while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
                    self.size_bytes += len(chunk)
                    yield chunk
        except (WorkError, ObjectFailed) as error:
            self.trouble = error
            raise
