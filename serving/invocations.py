"""The front of an endpoint, an ASGI application: takes an invocation, hands it to its backend, hands back the answer.

Whole (InvokeEndpoint) or as it comes (InvokeEndpointWithResponseStream). Knows the wire, the limits and how many
requests are under way. Who answers is the backend's matter.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from raymaker.serving import async_wire, event_stream
from raymaker.serving import runtime_wire as wire
from raymaker.serving.activity import Load
from raymaker.serving.async_worker import AsyncWorker
from raymaker.serving.backend import Backend, Invocation, ScoredStream
from raymaker.serving.capture import Capture
from raymaker.serving.capture_record import Exchange
from raymaker.serving.errors import StreamBroken
from raymaker.serving.leaving import ClientGone, WhileClientStays
from raymaker.serving.runtime_wire import Headers, Refusal, WireAnswer
from raymaker.serving.spec import EndpointSpec

logger = logging.getLogger(__name__)

RECEIPT_TIMEOUT_S = 60.0
CAPTURED_STREAM_BYTES = 6 * 1024 * 1024
"""The longest streamed answer that is captured: as long as a whole one at SageMaker."""
ACCEPT_TIMEOUT_S = 10.0
FAILED_TO_ANSWER = "The platform failed to answer. Its log has the details."

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Way = Callable[[Scope, Receive, Send], Awaitable[WireAnswer | None]]


class Invocations:
    """Answers for one endpoint. Belongs to one event loop."""

    def __init__(
        self,
        spec: EndpointSpec,
        backend: Backend,
        *,
        capture: Capture | None = None,
        worker: AsyncWorker | None = None,
        load: Load | None = None,
        receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
    ) -> None:
        self._spec = spec
        self._path = f"/endpoints/{spec.endpoint_name}/invocations"
        self._ways: dict[str, Way] = {
            self._path: self._invoke,
            f"{self._path}-response-stream": self._stream,
            f"/endpoints/{spec.endpoint_name}/async-invocations": self._accept,
        }
        self._rules = wire.rules_for(
            multi_model=spec.is_multi_model, has_graph=spec.has_graph, is_direct=spec.is_direct
        )
        self._backend = backend
        self._capture = capture
        self._worker = worker
        self.load = load or Load()
        """What is counted of its requests."""
        self._receipt_timeout_s = receipt_timeout_s
        self.pending_count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive, send)
        except Refusal as refusal:
            answer = refusal.answer
        except ClientGone:
            return
        except Exception:
            logger.exception("an invocation of %s failed", self._spec.endpoint_name)
            answer = wire.error("InternalFailure", FAILED_TO_ANSWER)
        if answer is not None:
            await send(_start(scope, answer, (b"content-length", b"%d" % len(answer.body))))
            await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> WireAnswer | None:
        """Answer in the way that the path names. Returns None where the answer was sent already."""
        way = self._ways.get(scope["path"]) if scope["method"] == "POST" else None
        if way is None:
            raise Refusal(wire.invalid(f"this endpoint answers POST {self._path} only", status=404))
        if self.pending_count >= self._spec.max_pending_requests:
            raise Refusal(wire.too_many(self.pending_count, throttles=self._spec.throttles))
        self.pending_count += 1
        self.load.touch()
        try:
            return await way(scope, receive, send)
        finally:
            self.pending_count -= 1
            self.load.touch()

    async def _invoke(self, scope: Scope, receive: Receive, _: Send) -> WireAnswer:
        headers = self._container_headers(scope["headers"])
        invocation = Invocation(headers, await self._receive_body(scope, receive))
        began_at = self.load.touch()
        async with WhileClientStays(receive):
            scored = await self._backend.invoke(invocation)
        self.load.answered(scored.variant, began_at)
        if scored.status >= 400:  # noqa: PLR2004 - HTTP's errors
            return wire.model_error(scored.status, scored.body, scored.log_stream_arn)
        if self._capture is not None:
            self._capture.sample(invocation, scored)
        return wire.success(scored.status, scored.headers, scored.body, scored.variant)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the answer on as it comes. A client that takes its time slows the model down, up to a limit."""
        headers = self._container_headers(wire.rename(scope["headers"], wire.STREAM_NAMES))
        invocation = Invocation(headers, await self._receive_body(scope, receive))
        began_at = self.load.touch()
        async with WhileClientStays(receive), self._backend.stream(invocation) as scored:
            self.load.answered(scored.variant, began_at)
            await send(_start(scope, wire.stream_begins(scored.status, scored.headers, scored.variant)))
            try:
                async for piece in self._captured(invocation, scored):
                    await self._send_event(send, event_stream.payload_part(piece))
            except StreamBroken as broken:
                end = event_stream.failure(event_stream.MODEL_STREAM_ERROR, str(broken), broken.code)
            except ClientGone:
                logger.info("a client of %s took nothing of its stream for too long", self._spec.endpoint_name)
                raise
            except Exception:
                logger.exception("a stream of %s failed", self._spec.endpoint_name)
                end = event_stream.failure(event_stream.INTERNAL_STREAM_FAILURE, FAILED_TO_ANSWER)
            else:
                end = b""
            await send({"type": "http.response.body", "body": end})

    async def _accept(self, scope: Scope, receive: Receive, _: Send) -> WireAnswer:
        """Put an asynchronous invocation into the queue, and say where its answer will lie."""
        spec = self._spec.asynchronous
        if spec is None or self._worker is None:
            raise Refusal(
                wire.invalid("this endpoint takes no asynchronous invocations: it has no AsyncInferenceConfig")
            )
        told = self._container_headers(wire.rename(scope["headers"], wire.ASYNC_NAMES))
        body = await self._receive_body(scope, receive, async_wire.BODY_LIMIT_BYTES)
        name, made_up_id = self._spec.endpoint_name, str(uuid.uuid4())
        invocation = async_wire.read_invocation(
            spec, name, scope["headers"], told, body, made_up_id=made_up_id, now=time.time()
        )
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                await self._worker.accept(invocation)
        except TimeoutError:
            raise Refusal(wire.overloaded("The queue cannot be reached at this moment. Try again shortly.")) from None
        return async_wire.accepted(invocation)

    async def _captured(self, invocation: Invocation, scored: ScoredStream) -> AsyncIterator[bytes]:
        """Yield the pieces; where they are to be captured, keep them until the answer is whole, up to a limit."""
        if self._capture is None or not self._capture.wants_one():
            async for piece in scored.pieces:
                yield piece
            return
        kept: list[bytes] = []
        kept_bytes = 0
        async for piece in scored.pieces:
            kept_bytes += len(piece)
            if kept_bytes <= CAPTURED_STREAM_BYTES:
                kept.append(piece)
            else:
                kept.clear()
            yield piece
        if kept_bytes <= CAPTURED_STREAM_BYTES:
            answered = b"".join(kept)
            self._capture.offer(
                Exchange(time.time(), scored.variant, invocation.headers, invocation.body, scored.headers, answered)
            )
        else:
            self._capture.lose_one()

    async def _send_event(self, send: Send, event: bytes) -> None:
        """Send one event. Raises ClientGone where the client takes longer over it than the model may."""
        try:
            async with asyncio.timeout(self._spec.invocation_timeout_s):
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except TimeoutError:
            raise ClientGone from None

    def _container_headers(self, headers: Headers) -> Headers:
        return wire.container_headers(headers, self._spec.variant_names, self._rules)

    async def _receive_body(self, scope: Scope, receive: Receive, most_bytes: int | None = None) -> bytes:
        """Take in the body, never more than the limit, never longer than the deadline. Raises Refusal, ClientGone."""
        limit_bytes = most_bytes or self._spec.max_body_bytes
        if int(_header(scope, b"content-length", b"0")) > limit_bytes:
            raise Refusal(wire.too_large(limit_bytes))
        pieces: list[bytes] = []
        received_bytes = 0
        try:
            async with asyncio.timeout(self._receipt_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    pieces.append(message.get("body", b""))
                    received_bytes += len(pieces[-1])
                    if received_bytes > limit_bytes:
                        raise Refusal(wire.too_large(limit_bytes))
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError:
            raise Refusal(wire.too_slow(self._receipt_timeout_s)) from None


def _start(scope: Scope, answer: WireAnswer, *more: tuple[bytes, bytes]) -> Message:
    """Begin an answer, under the id that its client or Serve gave the request, else under a new one."""
    request_id = (b"x-amzn-requestid", _header(scope, b"x-request-id", b"") or str(uuid.uuid4()).encode())
    return {"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, *more, request_id]}


def _header(scope: Scope, wanted: bytes, default: bytes) -> bytes:
    headers: Headers = scope["headers"]
    return next((value for name, value in headers if name == wanted), default)


async def _live(receive: Receive, send: Send) -> None:
    """Say yes to the server's start and end: the replica does its own starting and stopping."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
