"""Where requests to endpoints that sleep are held, within bounds, until these have woken; then they are passed on.

An endpoint that sleeps has no route of its own, so whoever asks for it comes to the frontend; so does who asks for one
that the proxy has not heard of yet, or that has no live replica. Many who ask at once wake an endpoint once. Making it
come up is the reconciler's matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import Executor
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote

import aiohttp

from raymaker.platform.database import hosting
from raymaker.platform.errors import ApiError
from raymaker.platform.hosting import sleep
from raymaker.platform.hosting.way_in import MARK_HEADER, HeldRequest, RouteMissing, Send
from raymaker.platform.operations.registry import Context
from raymaker.platform.records import Deployment, EndpointRecord, EndpointStatus, SleepStage
from raymaker.platform.wire import HttpAnswer
from raymaker.serving import runtime_wire
from raymaker.serving.leaving import ClientGone, WhileClientStays
from raymaker.serving.runtime_wire import Refusal, WireAnswer

MOST_HELD = 256
MOST_HELD_BYTES = 64 * 1024 * 1024
"""How many requests are held, and how many bytes of theirs, for all endpoints together."""
MOST_WAIT_S = 600.0
AWAKE_WAIT_S = 30.0
"""How long an endpoint is waited for that has woken already, and that the proxy should know of."""
PROBE_PAUSE_S = 0.05
LOOK_PAUSE_S = 0.5
RECEIPT_TIMEOUT_S = 60.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
T = TypeVar("T")


class WayIn(Protocol):
    """How endpoints are reached that have woken."""

    async def is_open(self, name: str) -> bool:
        """Tell whether an endpoint's own replica answers."""

    async def pass_on(self, request: HeldRequest, send: Send) -> None:
        """Have the endpoint answer. Raises RouteMissing where nobody has seen the request."""


def find_sleeper(context: Context, scope: Message) -> EndpointRecord | None:
    """Read the endpoint that a request is for, None where it is not one that is worth waiting for."""
    if any(name == MARK_HEADER.encode() for name, _ in scope["headers"]):
        return None
    name = unquote(scope["path"].split("/")[2])
    if not name.isascii() or "\0" in name:
        return None
    try:
        with context.database.reading() as connection:
            record = hosting.find_endpoint(connection, name)
    except ApiError:  # whoever explains why there is no route meets with it too, and says so
        return None
    return record if record is not None and _may_come(record) else None


class WaitingRoom:
    """Holds requests. Belongs to one event loop; what blocks is done by `threads`."""

    def __init__(
        self,
        context: Context,
        way: WayIn,
        threads: Executor,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._context = context
        self._way = way
        self._threads = threads
        self._pause = pause
        self._wakes: dict[str, asyncio.Task[None]] = {}
        self._held_count = 0
        self._held_bytes = 0

    async def answer(self, sleeper: EndpointRecord, scope: Message, receive: Receive, send: Send) -> HttpAnswer | None:
        """Hold a request until its endpoint answers. Returns an answer where it has none, None where that was sent."""
        try:
            with self._place() as place:
                request = await self._receive(sleeper, scope, receive, place)
                async with WhileClientStays(receive):
                    await self._serve(sleeper.name, request, send)
        except Refusal as refusal:
            return _http(refusal.answer)
        return None

    @contextmanager
    def _place(self) -> Iterator[_Place]:
        """Take a place in the room. Raises Refusal where there is none."""
        if self._held_count >= MOST_HELD:
            raise Refusal(runtime_wire.overloaded(f"{MOST_HELD} requests wait already. Try again shortly."))
        place = _Place(self._take_bytes)
        self._held_count += 1
        try:
            yield place
        finally:
            self._held_count -= 1
            self._held_bytes -= place.taken_bytes

    def _take_bytes(self, count: int) -> None:
        if self._held_bytes + count > MOST_HELD_BYTES:
            raise Refusal(runtime_wire.overloaded("Too much waits for endpoints to wake. Try again shortly."))
        self._held_bytes += count

    async def _receive(self, sleeper: EndpointRecord, scope: Message, receive: Receive, place: _Place) -> HeldRequest:
        """Take a request in, whole, within its endpoint's limit and in its time. Raises Refusal, ClientGone."""
        limit_bytes = _limit_bytes(sleeper.desired, self._context.settings.max_body_bytes)
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(RECEIPT_TIMEOUT_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    pieces.append(message.get("body", b""))
                    place.take(len(pieces[-1]))
                    if place.taken_bytes > limit_bytes:
                        raise Refusal(runtime_wire.too_large(limit_bytes))
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Refusal(runtime_wire.too_slow(RECEIPT_TIMEOUT_S)) from None
        raw = scope.get("raw_path") or quote(scope["path"]).encode()
        query = b"?" + scope["query_string"] if scope.get("query_string") else b""
        headers = tuple((bytes(name), bytes(value)) for name, value in scope["headers"])
        return HeldRequest(scope["method"], (raw + query).decode("latin-1"), headers, b"".join(pieces))

    async def _serve(self, name: str, request: HeldRequest, send: Send) -> None:
        """Wait until the endpoint answers, and have it. Raises Refusal."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MOST_WAIT_S
        while True:
            await self._woken(name)
            try:
                return await self._way.pass_on(request, send)
            except aiohttp.ClientError as error:
                raise Refusal(runtime_wire.model_failed(f"the way to it was lost: {error}", "")) from error
            except RouteMissing:  # it fell asleep again, or the proxy has not heard of it everywhere
                if loop.time() >= deadline:
                    raise Refusal(
                        runtime_wire.not_ready(f"Endpoint {name} does not wake. Try again shortly.")
                    ) from None
                await self._pause(PROBE_PAUSE_S)

    async def _woken(self, name: str) -> None:
        """Wait until the endpoint has woken; all who ask for one endpoint wait for one wake. Raises Refusal."""
        wake = self._wakes.get(name)
        if wake is None:
            wake = self._wakes[name] = asyncio.get_running_loop().create_task(self._wake(name))
            wake.add_done_callback(lambda done: self._forget(name, done))
        await asyncio.shield(wake)

    def _forget(self, name: str, wake: asyncio.Task[None]) -> None:
        del self._wakes[name]
        if not wake.cancelled():
            wake.exception()  # whoever waited has heard of it; perhaps all have gone

    async def _wake(self, name: str) -> None:
        """Have the endpoint deployed, and wait until its own replica answers. Raises Refusal where it cannot."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        look_at = began
        while True:
            if loop.time() >= look_at:
                awake = await self._in_thread(self._look, name, loop.time() == began)
                if loop.time() - began > (AWAKE_WAIT_S if awake else MOST_WAIT_S):
                    raise Refusal(runtime_wire.not_ready(f"Endpoint {name} does not answer yet. Try again shortly."))
                look_at = loop.time() + LOOK_PAUSE_S
            if await self._way.is_open(name):
                return
            await self._pause(PROBE_PAUSE_S)

    def _look(self, name: str, is_first: bool) -> bool:  # noqa: FBT001 - called through an executor
        """See that the endpoint is being woken, and tell whether it is awake. Raises Refusal where it cannot be."""
        with self._context.database.reading() as connection:
            record = hosting.find_endpoint(connection, name)
        if record is None or not _may_come(record):
            raise Refusal(runtime_wire.invalid(f"Endpoint {name} is no longer in service."))
        if record.sleep in {SleepStage.ASLEEP, SleepStage.FALLING_ASLEEP}:
            if (reason := sleep.why_not_woken(record)) is not None and not is_first:
                raise Refusal(runtime_wire.model_failed(reason, ""))
            with self._context.database.transaction() as connection:
                hosting.move_endpoint(connection, name, sleep.wake_up)
            self._context.cluster.wake()
        return record.sleep is None

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


class _Place:
    """What one request has taken of the room."""

    def __init__(self, take: Callable[[int], None]) -> None:
        self._take = take
        self.taken_bytes = 0

    def take(self, count: int) -> None:
        """Take room for more bytes. Raises Refusal where there is none."""
        self._take(count)
        self.taken_bytes += count


def _may_come(record: EndpointRecord) -> bool:
    """Tell whether an endpoint that has no route is worth waiting for: it has been in service, and was not given up.

    It sleeps, or the proxy has not heard of it yet, or its only replica just takes new weights in.
    """
    serving = {EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING, EndpointStatus.ROLLING_BACK}
    return record.status in serving and record.deployed is not None


def _limit_bytes(deployment: Deployment, default: int) -> int:
    """The largest body that any variant takes."""
    return max(int(variant.request.get("MaxPayloadInBytes", default)) for variant in deployment.variants)


def _http(answer: WireAnswer) -> HttpAnswer:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return HttpAnswer(HTTPStatus(answer.status), answer.body, headers.pop("content-type"), headers)
