"""The frontend, as a plain ASGI application: receives requests within bounds and has `dispatch` answer them in threads.

Invocations go straight to their endpoint's own application; only those for which there is none arrive here.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from typing import Any, TypeVar

from raymaker.platform import dispatch, prometheus, query, wire
from raymaker.platform.errors import ApiError, ClientError, RequestTimeout, RequestTooLarge, ServiceUnavailable
from raymaker.platform.hosting.waiting_room import WaitingRoom, find_sleeper
from raymaker.platform.hosting.way_in import ProxyWay
from raymaker.platform.operations.registry import HANDLERS, Context
from raymaker.platform.records import EndpointRecord
from raymaker.platform.wire import HttpAnswer
from raymaker.serving.leaving import ClientGone
from raymaker.serving.proxy import NO_ROUTE_HEADER

BODY_LIMIT_BYTES = 4 * 1024 * 1024
RECEIPT_DEADLINE_S = 30.0
THREAD_COUNT = 16
WAITING_LIMIT = 256
"""Requests that may wait for a thread or be in one; whoever comes beyond is asked to come again."""

_CREDENTIAL = re.compile(r"\bCredential=([\w+=.@-]{1,128})/", re.ASCII)

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def create_app(
    context: Context,
    *,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    receipt_deadline_s: float = RECEIPT_DEADLINE_S,
    waiting_limit: int = WAITING_LIMIT,
) -> Application:
    """Make the application that answers the API with `context`, and see that every operation is registered."""
    dispatch.load_operations()
    return _Frontend(context, body_limit_bytes, receipt_deadline_s, waiting_limit)


class _Frontend:
    """One ASGI application with its threads."""

    def __init__(self, context: Context, body_limit_bytes: int, receipt_deadline_s: float, waiting_limit: int) -> None:
        self._context = context
        self._body_limit_bytes = body_limit_bytes
        self._receipt_deadline_s = receipt_deadline_s
        self._waiting_limit = waiting_limit
        self._waiting_count = 0
        self._threads = ThreadPoolExecutor(THREAD_COUNT, "raymaker-api")
        self._way = ProxyWay(context.settings.url)
        self._room = WaitingRoom(context, self._way, self._threads)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one connection's request, or take part in the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "the API speaks HTTP only"})
        else:
            await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Follow the server from its start to its end."""
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self._way.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, under a request id of its own."""
        request_id = str(uuid.uuid4())
        try:
            if scope["path"].startswith("/endpoints/"):
                answer = await self._hold(scope, receive, send, request_id)
            else:
                answer = await self._route(scope, receive, request_id)
        except ClientGone:
            return
        if answer is None:
            return
        headers = {
            "content-type": answer.content_type,
            "content-length": str(len(answer.body)),
            "x-amzn-RequestId": request_id,
            **answer.headers,
        }
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": int(answer.status), "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _route(self, scope: Message, receive: Receive, request_id: str) -> HttpAnswer:
        """Choose by path and method."""
        method, path = scope["method"], scope["path"]
        if path in {"/ping", "/healthz"}:
            return wire.write_json(HTTPStatus.OK, {"status": "ok"})
        if path == "/metrics" and method in {"GET", "HEAD"}:
            return await self._in_thread(_scrape, self._context)
        if path != "/":
            return wire.write_json(HTTPStatus.NOT_FOUND, {"message": "nothing is here; POST API requests to /"})
        if method in {"GET", "HEAD"}:
            return wire.write_json(HTTPStatus.OK, _about(self._context))
        if method != "POST":
            text = f"{method} is not answered; POST API requests to /"
            return replace(
                wire.write_json(HTTPStatus.METHOD_NOT_ALLOWED, {"message": text}), headers={"allow": "GET, HEAD, POST"}
            )
        return await self._call(scope, receive, request_id)

    async def _hold(self, scope: Message, receive: Receive, send: Send, request_id: str) -> HttpAnswer | None:
        """Wait for an endpoint that sleeps, and have it answer; None where it has. Of any other say why it cannot."""
        found = await self._in_thread(find_sleeper, self._context, scope)
        if isinstance(found, EndpointRecord):
            return await self._room.answer(found, scope, receive, send)
        if found is not None:
            return found
        explained = await self._in_thread(dispatch.explain_missing_route, self._context, scope["path"], request_id)
        return replace(explained, headers={**explained.headers, NO_ROUTE_HEADER: "1"})

    async def _call(self, scope: Message, receive: Receive, request_id: str) -> HttpAnswer:
        """Receive an API request and run its operation."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            body = await self._receive_body(headers, receive)
        except ClientError as error:
            answer = wire.write_error(error)
            return replace(answer, headers={**answer.headers, "connection": "close"})
        target = headers.get("x-amz-target")
        if target is None and headers.get("content-type", "").startswith(query.CONTENT_TYPE):
            return await self._in_thread(dispatch.answer_query, self._context, body, request_id)
        context = replace(self._context, caller=_caller(headers))
        return await self._in_thread(dispatch.answer_json, context, target, body, request_id)

    async def _receive_body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """Gather the body within the limit and the deadline. Raises RequestTooLarge, RequestTimeout, ClientGone."""
        too_large = RequestTooLarge(f"the body is over the limit of {self._body_limit_bytes} bytes; send less")
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self._body_limit_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._receipt_deadline_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    body += message.get("body", b"")
                    if len(body) > self._body_limit_bytes:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            seconds = f"{self._receipt_deadline_s:g}"
            raise RequestTimeout(f"the body did not arrive within {seconds} s; send the request again") from None

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T | HttpAnswer:
        """Run blocking work in a thread, unless too many wait for one already."""
        if self._waiting_count >= self._waiting_limit:
            return wire.write_error(ServiceUnavailable("too many requests at once; send this one again shortly"))
        self._waiting_count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting_count -= 1


def _caller(headers: dict[str, str]) -> str:
    """The access key id that a request says it was signed with, as `Credential=<id>/<date>/…`."""
    said = _CREDENTIAL.search(headers.get("authorization", ""))
    return said.group(1) if said else Context.caller


def _scrape(context: Context) -> HttpAnswer:
    try:
        return HttpAnswer(HTTPStatus.OK, prometheus.render(context.database, context.now()), prometheus.CONTENT_TYPE)
    except ApiError as error:
        return wire.write_error(error)


def _about(context: Context) -> dict[str, object]:
    """Tell whoever opens the address in a browser what answers here."""
    return {
        "service": "raymaker",
        "api": "SageMaker's, over AWS JSON 1.1: point a client's endpoint_url here",
        "region": context.region,
        "account": context.account,
        "operations": sorted(HANDLERS),
    }
