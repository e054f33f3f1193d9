"""The ASGI application of one replica: takes InvokeEndpoint, hands it to the scoring container, hands back the answer.

Starts no container: it is told where one answers, and lets requests wait for a while where none does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from raymaker.serving import runtime_wire as wire
from raymaker.serving.forward import ContainerAnswer, Forwarder, NoAnswer, NothingSent
from raymaker.serving.runtime_wire import Headers, Refusal, WireAnswer
from raymaker.serving.spec import EndpointSpec

logger = logging.getLogger(__name__)

RECEIPT_TIMEOUT_S = 60.0
READY_WAIT_S = 30.0
"""How long a request waits for a container that is being replaced: longer than most take to start."""
RETRY_PAUSE_S = 0.05
PING_TIMEOUT_S = 2.0

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGone(Exception):
    """The client left before its request was whole: there is nobody to answer."""


class Invocations:
    """Answers for one endpoint. Belongs to one event loop."""

    def __init__(
        self,
        spec: EndpointSpec,
        log_stream_arn: str,
        *,
        connect: Callable[[str, int], Forwarder] = Forwarder,
        receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
        ready_wait_s: float = READY_WAIT_S,
    ) -> None:
        self._spec = spec
        self._path = f"/endpoints/{spec.endpoint_name}/invocations"
        self._log_stream_arn = log_stream_arn
        self._connect = connect
        self._receipt_timeout_s = receipt_timeout_s
        self._ready_wait_s = ready_wait_s
        self._container: Forwarder | None = None
        self._arrived = asyncio.Event()
        self.pending_count = 0
        self.answer_count = 0
        """Answers that the container gave, pings included: as long as it grows, the container lives."""

    def set_container(self, address: tuple[str, int] | None) -> None:
        """Send requests to `address` from now on, or let them wait."""
        if self._container is not None:
            self._container.close()
        self._container = self._connect(*address) if address else None
        if address:
            self._arrived.set()
        else:
            self._arrived.clear()

    async def ping(self) -> bool:
        """Ask the container's /ping once."""
        if self._container is None:
            return False
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                answer = await self._container.request("GET", "/ping")
        except (TimeoutError, NoAnswer, NothingSent):
            return False
        self.answer_count += answer.status == 200  # noqa: PLR2004 - HTTP's OK
        return answer.status == 200  # noqa: PLR2004

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
        except Refusal as refusal:
            answer = refusal.answer
        except ClientGone:
            return
        except Exception:
            logger.exception("an invocation of %s failed", self._spec.endpoint_name)
            answer = wire.error("InternalFailure", "The platform failed to answer. Its log has the details.")
        length = (b"content-length", b"%d" % len(answer.body))
        request_id = (b"x-amzn-requestid", _header(scope, b"x-request-id", b""))
        headers = [*answer.headers, length, request_id]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> WireAnswer:
        if scope["path"] != self._path or scope["method"] != "POST":
            raise Refusal(wire.invalid(f"this endpoint answers POST {self._path} only", status=404))
        headers = wire.container_headers(scope["headers"], self._spec.variant_name)
        if self.pending_count >= self._spec.max_pending_requests:
            raise Refusal(wire.overloaded(f"{self.pending_count} requests are under way already. Try again shortly."))
        self.pending_count += 1
        try:
            body = await self._receive_body(scope, receive)
            answer = await self._invoke(headers, body)
        finally:
            self.pending_count -= 1
        self.answer_count += 1
        if answer.status >= 400:  # noqa: PLR2004 - HTTP's errors
            return wire.model_error(answer.status, answer.body, self._log_stream_arn)
        return wire.success(answer.status, answer.headers, answer.body, self._spec.variant_name)

    async def _receive_body(self, scope: Scope, receive: Receive) -> bytes:
        """Take in the body, never more than the limit, never longer than the deadline. Raises Refusal, ClientGone."""
        limit_bytes = self._spec.scoring.max_body_bytes
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

    async def _invoke(self, headers: Headers, body: bytes) -> ContainerAnswer:
        """Ask the container; where none has seen the request, ask again. Raises Refusal."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._ready_wait_s
        timeout_s = self._spec.scoring.invocation_timeout_s
        while True:
            container = self._container or await self._next_container(patience)
            try:
                async with asyncio.timeout(timeout_s):
                    return await container.request("POST", "/invocations", headers, body)
            except NothingSent as error:
                if loop.time() >= patience:
                    raise self._not_ready(str(error)) from None
                await asyncio.sleep(RETRY_PAUSE_S)
            except TimeoutError:
                reason = f"it took longer than {timeout_s:g} s"
                raise Refusal(wire.model_failed(reason, self._log_stream_arn)) from None
            except NoAnswer as error:
                raise Refusal(wire.model_failed(str(error), self._log_stream_arn)) from None

    async def _next_container(self, patience: float) -> Forwarder:
        try:
            async with asyncio.timeout_at(patience):
                while self._container is None:
                    await self._arrived.wait()
        except TimeoutError:
            raise self._not_ready("it is being replaced") from None
        return self._container

    def _not_ready(self, reason: str) -> Refusal:
        return Refusal(
            wire.not_ready(f"The scoring container of this replica is not ready: {reason}. Try again shortly.")
        )


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
