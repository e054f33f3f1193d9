"""The way from the waiting room back to an endpoint: through the platform's own proxy, as the request had come.

What goes this way is marked, so that what finds no endpoint is told so at once and is not held a second time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from yarl import URL

from raymaker.serving.proxy import NO_ROUTE_HEADER

MARK_HEADER = "x-raymaker-woken"
PROBE_TIMEOUT_S = 5.0
_OF_ONE_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host"})
_OF_ONE_REQUEST = _OF_ONE_HOP | {b"content-length", b"expect", MARK_HEADER.encode()}
_OF_ONE_ANSWER = _OF_ONE_HOP | {b"date", b"server"}

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class RouteMissing(Exception):
    """No replica has seen the request: it may be sent again."""


@dataclass(frozen=True)
class HeldRequest:
    """A request that was taken in whole."""

    method: str
    target: str
    """Path and query, as they came."""
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class ProxyWay:
    """The way through the proxy at `url`. Belongs to one event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def is_open(self, name: str) -> bool:
        """Tell whether an endpoint's own replica answers: it refuses what is no POST."""
        url = f"{self._url}/endpoints/{name}/invocations"
        timeout = aiohttp.ClientTimeout(PROBE_TIMEOUT_S)
        try:
            async with self._connected().get(url, headers={MARK_HEADER: "1"}, timeout=timeout) as answer:
                return NO_ROUTE_HEADER not in answer.headers and answer.status != HTTPStatus.SERVICE_UNAVAILABLE
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def pass_on(self, request: HeldRequest, send: Send) -> None:
        """Have the endpoint answer, and hand its answer on as it comes. Raises RouteMissing, aiohttp.ClientError."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        kept = [(name, value) for name, value in headers if name.encode("latin-1").lower() not in _OF_ONE_REQUEST]
        async with self._connected().request(
            request.method,
            URL(self._url + request.target, encoded=True),
            headers=[*kept, (MARK_HEADER, "1")],
            data=request.body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            if NO_ROUTE_HEADER in answer.headers:
                raise RouteMissing
            told = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in _OF_ONE_ANSWER]
            await send({"type": "http.response.start", "status": answer.status, "headers": told})
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session
