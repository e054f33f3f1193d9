"""Notices that a client leaves while its request is being answered, so that nobody works on for nobody.

Serve does so too, but at the cost of two tasks and a queue for every request, a third of its share of a short one. So
it is told to leave that to us (`haproxy-loopback.sh`), and here it costs a short request next to nothing: only after a
moment somebody begins to listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

LISTEN_AFTER_S = 0.1


class ClientGone(Exception):
    """The client left, or stopped reading: there is nobody to answer."""


class WhileClientStays:
    """A block that is broken off, with ClientGone, where the client leaves.

    `receive` is ASGI's, of a request whose body was taken in. What is sent in the block ends it, not its client.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._end = asyncio.timeout(None)
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._end.__aenter__()
        self._later = asyncio.get_running_loop().call_later(LISTEN_AFTER_S, self._listen)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._later.cancel()
        if self._listening is not None:
            self._listening.cancel()
        try:
            await self._end.__aexit__(kind, error, trace)
        except TimeoutError:
            raise ClientGone from None

    def _listen(self) -> None:
        self._listening = asyncio.get_running_loop().create_task(self._await_leave())

    async def _await_leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self._end.reschedule(0.0)
