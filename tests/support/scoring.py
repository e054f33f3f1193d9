"""A scoring container that is a small class, and the backend that stands before it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from raymaker.serving.capture_record import Exchange
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.local_container import LocalContainer
from raymaker.serving.runtime_wire import PREFIX

ADDRESS = ("10.0.0.1", 8080)


class FakeStream:
    """An answer in pieces; an exception among them is raised in its turn."""

    def __init__(self, status: int, pieces: list[Any], hold: asyncio.Event | None) -> None:
        self.status = status
        self.headers = [(b"content-type", b"text/plain"), (b"x-amzn-sagemaker-custom-attributes", b"said")]
        self.is_closed = False
        self._pieces = list(pieces)
        self._hold = hold

    async def next_piece(self) -> bytes | None:
        if self._hold is not None:
            await self._hold.wait()
        piece = self._pieces.pop(0) if self._pieces else None
        if isinstance(piece, Exception):
            raise piece
        return piece


class FakeContainer:
    """A container that echoes; it can be told to fail, to hang, or to answer with a status."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, list[tuple[bytes, bytes]], bytes]] = []
        self.status = 200
        self.failures: list[Exception] = []
        self.hold: asyncio.Event | None = None
        self.is_closed = False
        self.pieces: list[bytes | Exception] = []
        self.streams: list[FakeStream] = []

    def fail_next(self, *failures: Exception) -> None:
        self.failures += failures

    async def request(
        self, method: str, path: str, headers: Any = (), body: bytes = b"", *, timeout_s: float | None = None
    ) -> ContainerAnswer:
        if self.failures:
            raise self.failures.pop(0)
        self.seen.append((method, path, list(headers), body))
        if self.hold is not None:
            async with asyncio.timeout(timeout_s):
                await self.hold.wait()
        return ContainerAnswer(self.status, [(b"content-type", b"text/plain")], body)

    @contextlib.asynccontextmanager
    async def stream(self, method: str, path: str, headers: Any = (), body: bytes = b"") -> AsyncIterator[FakeStream]:
        if self.failures:
            raise self.failures.pop(0)
        self.seen.append((method, path, list(headers), body))
        self.streams.append(FakeStream(self.status, self.pieces or [body], self.hold))
        try:
            yield self.streams[-1]
        finally:
            self.streams[-1].is_closed = True

    def close(self) -> None:
        self.is_closed = True


def local_container(container: FakeContainer | None, *, variant: str = "v", **overrides: Any) -> LocalContainer:
    """The backend of a replica whose container this is; None: it has none yet."""
    options = {"timeout_s": 60.0, "connect": lambda *_: container, **overrides}
    backend = LocalContainer(variant, "arn", **options)
    if container is not None:
        backend.set_container(ADDRESS)
    return backend


def exchange(
    time: float,
    variant: str = "v",
    *,
    asked: bytes = b"1,2",
    asked_type: str = "text/csv",
    answered: bytes = b"[3]",
    answered_type: str = "application/json",
    **attributes: str,
) -> Exchange:
    """What is captured of an invocation. `attributes` are headers of the request: `inference_id` and its like."""
    told = [(PREFIX + name.replace("_", "-").encode(), value.encode()) for name, value in attributes.items()]
    asked_headers = [(b"content-type", asked_type.encode()), *told]
    return Exchange(time, variant, asked_headers, asked, [(b"content-type", answered_type.encode())], answered)
