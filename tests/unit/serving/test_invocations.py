"""One replica's HTTP side, before a container that is a small class: what it forwards, refuses, bounds, survives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.forward import ContainerAnswer, NoAnswer, NothingSent
from raymaker.serving.invocations import Invocations
from raymaker.serving.spec import EndpointSpec

ADDRESS = ("10.0.0.1", 8080)


class FakeContainer:
    """A container that echoes; it can be told to fail, to hang, or to answer with a status."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, list[tuple[bytes, bytes]], bytes]] = []
        self.status = 200
        self.failures: list[Exception] = []
        self.hold: asyncio.Event | None = None
        self.is_closed = False

    def fail_next(self, *failures: Exception) -> None:
        self.failures += failures

    async def request(self, method: str, path: str, headers: Any = (), body: bytes = b"") -> ContainerAnswer:
        if self.failures:
            raise self.failures.pop(0)
        self.seen.append((method, path, list(headers), body))
        if self.hold is not None:
            await self.hold.wait()
        return ContainerAnswer(self.status, [(b"content-type", b"text/plain")], body)

    def close(self) -> None:
        self.is_closed = True


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
        return (sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]) if sent else None


def application(container: FakeContainer | None, **overrides: Any) -> Invocations:
    scoring = ScoringSpec(max_body_bytes=10, invocation_timeout_s=overrides.pop("invocation_timeout_s", 60))
    pending = overrides.pop("max_pending_requests", 3)
    spec = EndpointSpec("e", "c", 1, "v", 1, InstanceType("local", Resources()), scoring, "", pending)
    app = Invocations(spec, "arn", connect=lambda *_: container, **overrides)  # type: ignore[arg-type, return-value]
    if container is not None:
        app.set_container(ADDRESS)
    return app


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


def test_a_container_that_takes_too_long_is_a_model_error() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.hold = asyncio.Event()
        answer = await Client(application(container, invocation_timeout_s=0.0)).post(b"a")
        assert code(answer) == (424, "ModelError")
        assert "longer than 0 s" in json.loads(answer[2])["Message"]

    asyncio.run(story())


def test_a_request_that_the_container_may_have_seen_is_not_sent_again() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.fail_next(NoAnswer("it closed the connection"))
        assert code(await Client(application(container)).post(b"a")) == (424, "ModelError")
        assert container.seen == []

    asyncio.run(story())


def test_a_request_that_no_container_has_seen_is_kept_for_the_next_one() -> None:
    async def story() -> None:
        dying, fresh = FakeContainer(), FakeContainer()
        app = application(dying)
        app.set_container(None)
        assert dying.is_closed
        waiting = asyncio.create_task(Client(app).post(b"a"))
        await asyncio.sleep(0)
        app._connect = lambda *_: fresh  # type: ignore[assignment, return-value]
        app.set_container(ADDRESS)
        assert (await waiting)[0] == 200
        assert len(fresh.seen) == 1

    asyncio.run(story())


def test_without_a_container_for_long_the_model_is_not_ready() -> None:
    async def story() -> None:
        answer = await Client(application(None, ready_wait_s=0.0)).post(b"a")
        assert code(answer) == (429, "ModelNotReadyException")

    asyncio.run(story())


def test_a_container_that_refuses_connections_for_long_is_not_ready() -> None:
    async def story() -> None:
        container = FakeContainer()
        container.fail_next(NothingSent("refused"))
        answer = await Client(application(container, ready_wait_s=0.0)).post(b"a")
        assert code(answer) == (429, "ModelNotReadyException")

    asyncio.run(story())


def test_other_paths_and_methods_are_refused_by_name() -> None:
    async def story() -> None:
        client = Client(application(FakeContainer()))
        for answer in (
            await client.post(b"", path="/endpoints/e/async-invocations"),
            await client.post(b"", path="/endpoints/e/invocations/x"),
            await client.post(b"", method="GET"),
        ):
            assert code(answer) == (404, "ValidationError")

    asyncio.run(story())


def test_a_ping_counts_as_a_sign_of_life_only_when_it_is_answered_with_200() -> None:
    async def story() -> None:
        container = FakeContainer()
        app = application(container)
        assert await app.ping()
        container.status = 503
        assert not await app.ping()
        container.fail_next(NoAnswer("gone"))
        assert not await app.ping()
        assert app.answer_count == 1
        app.set_container(None)
        assert not await app.ping()

    asyncio.run(story())


def test_the_applications_own_start_and_end_are_agreed_to() -> None:
    async def story() -> None:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[str] = []

        async def receive() -> dict:
            return messages.pop(0)

        async def send(message: dict) -> None:
            sent.append(message["type"])

        await application(None)({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    asyncio.run(story())
