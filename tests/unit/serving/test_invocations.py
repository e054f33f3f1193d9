"""An endpoint's front, before a container that is a small class: what it passes on, refuses and bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from botocore.eventstream import EventStreamBuffer

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.errors import NoAnswer
from raymaker.serving.invocations import Invocations
from raymaker.serving.spec import EndpointSpec, VariantSpec
from support.scoring import FakeContainer, local_container

STREAM = "/endpoints/e/invocations-response-stream"


class Client:
    """Speaks ASGI to the application, and keeps what came back."""

    def __init__(self, app: Invocations, endpoint: str = "e") -> None:
        self._app = app
        self._path = f"/endpoints/{endpoint}/invocations"

    async def post(self, *pieces: bytes, path: str | None = None, headers: Any = (), method: str = "POST") -> Any:
        messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        messages.append({"type": "http.request", "body": b""})
        self.unread = messages

        async def receive() -> dict:
            await asyncio.sleep(0)
            return messages.pop(0)

        return await self.exchange(receive, path or self._path, headers, method)

    async def exchange(
        self, receive: Callable[[], Awaitable[dict]], path: str, headers: Any = (), method: str = "POST"
    ) -> Any:
        sent: list[dict] = []

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        await self._app(scope, receive, send)
        if not sent:
            return None
        assert not sent[-1].get("more_body", False)
        return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


def application(
    container: FakeContainer, *, max_pending_requests: int = 3, invocation_timeout_s: float = 60.0, **overrides: Any
) -> Invocations:
    scoring = ScoringSpec(max_body_bytes=10, invocation_timeout_s=invocation_timeout_s)
    variant = VariantSpec(
        "v", 1, InstanceType("local", Resources()), scoring, max_pending_requests=max_pending_requests
    )
    return Invocations(EndpointSpec("e", "c", 1, (variant,)), local_container(container, variant="v"), **overrides)


def code(answer: Any) -> tuple[int, str]:
    return answer[0], answer[1][b"x-amzn-errortype"].decode()


def test_the_body_reaches_the_container_byte_for_byte_and_its_answer_comes_back() -> None:
    async def story() -> None:
        container = FakeContainer()
        status, headers, body = await Client(application(container)).post(
            b"\x00\xff", b"ab", headers=[(b"accept", b"*/*")]
        )
        assert container.seen == [("POST", "/invocations", [(b"accept", b"*/*")], b"\x00\xffab")]
        assert (status, body) == (200, b"\x00\xffab")
        assert headers[b"x-amzn-invoked-production-variant"] == b"v"
        assert headers[b"content-length"] == b"4"

    asyncio.run(story())


def test_a_declared_body_over_the_limit_is_refused_unread() -> None:
    async def story() -> None:
        container = FakeContainer()
        client = Client(application(container))
        answer = await client.post(b"x" * 11, headers=[(b"content-length", b"11")])
        assert code(answer) == (413, "ValidationError")
        assert len(client.unread) == 2
        assert container.seen == []

    asyncio.run(story())


def test_a_body_that_grows_over_the_limit_is_refused_before_the_rest_is_read() -> None:
    async def story() -> None:
        container = FakeContainer()
        client = Client(application(container))
        assert code(await client.post(*[b"12345"] * 100)) == (413, "ValidationError")
        assert len(client.unread) > 90
        assert container.seen == []

    asyncio.run(story())


def test_a_sender_that_never_ends_its_body_meets_the_deadline() -> None:
    async def story() -> None:
        async def receive() -> dict:
            await asyncio.Event().wait()
            return {}

        app = application(FakeContainer(), receipt_timeout_s=0.0)
        assert code(await Client(app).exchange(receive, "/endpoints/e/invocations")) == (408, "ValidationError")
        assert app.pending_count == 0

    asyncio.run(story())


def test_a_client_that_leaves_is_not_answered_and_the_container_not_asked() -> None:
    async def story() -> None:
        async def receive() -> dict:
            return {"type": "http.disconnect"}

        container = FakeContainer()
        app = application(container)
        assert await Client(app).exchange(receive, "/endpoints/e/invocations") is None
        assert container.seen == []
        assert app.pending_count == 0

    asyncio.run(story())


def test_more_requests_than_allowed_are_turned_away_and_the_others_are_served() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.hold = asyncio.Event()
        client = Client(application(container))
        accepted = [asyncio.create_task(Client(client._app).post(b"a")) for _ in range(3)]
        while len(container.seen) < 3:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0)
        answer = await client.post(b"b")
        assert code(answer) == (503, "ServiceUnavailable")
        assert answer[1][b"retry-after"] == b"1"
        container.hold.set()
        assert [(await task)[0] for task in accepted] == [200, 200, 200]

    asyncio.run(story())


def test_an_error_of_the_container_becomes_a_model_error() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.status = 500
        answer = await Client(application(container)).post(b"why")
        assert code(answer) == (424, "ModelError")
        assert json.loads(answer[2])["OriginalStatusCode"] == 500
        assert json.loads(answer[2])["OriginalMessage"] == "why"

    asyncio.run(story())


def events_of(body: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream: each one's type and payload."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(m.headers.get(":event-type") or m.headers[":exception-type"], m.payload) for m in buffer]


def test_a_stream_is_answered_in_events_with_the_containers_own_type_beside() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.pieces = [b"one", b"two"]
        status, headers, body = await Client(application(container)).post(
            b"q", path=STREAM, headers=[(b"accept", b"*/*"), (b"x-amzn-sagemaker-accept", b"text/plain")]
        )
        assert container.seen == [("POST", "/invocations", [(b"accept", b"text/plain")], b"q")]
        assert status == 200
        assert headers[b"content-type"] == b"application/vnd.amazon.eventstream"
        assert headers[b"x-amzn-sagemaker-content-type"] == b"text/plain"
        assert headers[b"x-amzn-sagemaker-custom-attributes"] == b"said"
        assert headers[b"x-amzn-invoked-production-variant"] == b"v"
        assert events_of(body) == [("PayloadPart", b"one"), ("PayloadPart", b"two")]

    asyncio.run(story())


def test_a_stream_that_breaks_off_ends_with_the_reason_and_a_bug_with_ours() -> None:
    async def story() -> None:
        container = FakeContainer()
        client = Client(application(container))
        container.pieces = [b"one", NoAnswer("it died")]
        _, (kind, told) = events_of((await client.post(b"q", path=STREAM))[2])
        assert kind == "ModelStreamError"
        assert json.loads(told) == {"Message": "the model broke off: it died", "ErrorCode": "StreamBroken"}
        container.pieces = [b"one", RuntimeError("a bug")]
        _, (kind, told) = events_of((await client.post(b"q", path=STREAM))[2])
        assert kind == "InternalStreamFailure"
        assert b"a bug" not in told
        container.status, container.pieces = 500, [b"no"]
        assert code(await client.post(b"q", path=STREAM)) == (424, "ModelError")

    asyncio.run(story())


def test_a_client_that_takes_nothing_of_its_stream_is_given_up_and_the_container_let_go() -> None:
    async def story() -> None:
        container = FakeContainer()
        app = application(container, invocation_timeout_s=0.0)
        app._backend._timeout_s = 60.0  # the model has the time that the client has not

        async def send(message: dict) -> None:
            if message.get("more_body"):
                await asyncio.Event().wait()

        async def receive() -> dict:
            return {"type": "http.request", "body": b"q"}

        await app({"type": "http", "method": "POST", "path": STREAM, "headers": []}, receive, send)
        assert container.streams[0].is_closed
        assert app.pending_count == 0

    asyncio.run(story())


def test_other_paths_and_methods_are_refused_by_name() -> None:
    async def story() -> None:
        client = Client(application(FakeContainer()))
        for answer in (
            await client.post(b"", path="/endpoints/other/invocations"),
            await client.post(b"", path="/endpoints/e/invocations/x"),
            await client.post(b"", method="GET"),
        ):
            assert code(answer) == (404, "ValidationError")

    asyncio.run(story())


def test_an_endpoint_that_is_not_asynchronous_says_what_is_missing() -> None:
    async def story() -> None:
        answer = await Client(application(FakeContainer())).post(b"", path="/endpoints/e/async-invocations")
        assert code(answer) == (400, "ValidationError")
        assert b"AsyncInferenceConfig" in answer[2]

    asyncio.run(story())


def test_the_applications_own_start_and_end_are_agreed_to() -> None:
    async def story() -> None:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[str] = []

        async def receive() -> dict:
            return messages.pop(0)

        async def send(message: dict) -> None:
            sent.append(message["type"])

        await application(FakeContainer())({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    asyncio.run(story())
