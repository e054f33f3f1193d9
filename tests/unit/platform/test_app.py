"""The frontend, spoken to as a server would, without one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from sqlalchemy.exc import OperationalError

from raymaker.actors.errors import PackagingError
from raymaker.platform.app import create_app
from raymaker.platform.errors import ResourceInUse, ValidationException
from raymaker.platform.operations.registry import HANDLERS
from support.frontend import make_context


@dataclass
class Exchange:
    """One request handed over piece by piece, and what was answered. `then` is what the client does at the end."""

    pieces: list[bytes]
    then: Literal["wait", "hang up", "say nothing more"] = "wait"
    sent: list[dict[str, Any]] = field(default_factory=list)
    received_count: int = 0

    async def receive(self) -> dict[str, Any]:
        if self.pieces:
            self.received_count += 1
            piece = self.pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or self.then != "wait"}
        if self.then != "hang up":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> Any:
        return json.loads(self.sent[1]["body"])


def ask(app, exchange: Exchange, method="POST", path="/", **headers: str) -> Exchange:
    """Put one request to the application."""
    encoded = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": encoded}
    asyncio.run(app(scope, exchange.receive, exchange.send))
    return exchange


def call(app, operation: str, document: Any, **headers: str) -> Exchange:
    """Call a SageMaker operation."""
    exchange = Exchange([json.dumps(document).encode()])
    return ask(app, exchange, x_amz_target=f"SageMaker.{operation}", **headers)


@pytest.fixture
def answering(home, monkeypatch):
    """Make an application whose DescribeTrainingJob is the given function."""

    def make(handler, **limits):
        app = create_app(make_context(home), **limits)
        monkeypatch.setitem(HANDLERS, "DescribeTrainingJob", handler)
        monkeypatch.setitem(HANDLERS, "DescribeEndpoint", handler)
        return app

    return make


def raising(error: Exception):
    """An operation that fails."""

    def handler(*_):
        raise error

    return handler


NAME = {"TrainingJobName": "digits-1"}


def test_an_operation_gets_the_request_and_its_answer_goes_out_under_a_request_id(answering):
    seen = []
    app = answering(lambda context, request: seen.append((context.account, request)) or {"TrainingJobName": "digits-1"})
    exchange = call(app, "DescribeTrainingJob", NAME)
    assert (exchange.status, exchange.body, seen) == (200, NAME, [("123456789012", NAME)])
    assert exchange.headers["content-type"] == "application/x-amz-json-1.1"
    assert len(exchange.headers["x-amzn-requestid"]) == 36


@pytest.mark.parametrize(
    ("authorization", "caller"),
    [
        (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/sagemaker/aws4_request, Signature=0",
            "AKIDEXAMPLE",
        ),
        ("Bearer token", "unknown"),
        ("Credential=a\u00e9/", "unknown"),
    ],
)
def test_an_operation_is_told_whose_key_signed_the_request(answering, authorization, caller):
    seen = []
    app = answering(lambda context, _: seen.append(context.caller) or NAME)
    call(app, "DescribeTrainingJob", NAME, authorization=authorization)
    call(app, "DescribeTrainingJob", NAME)
    assert seen == [caller, "unknown"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ValidationException("Requested resource not found."), 400, "ValidationException"),
        (ResourceInUse("taken"), 400, "ResourceInUse"),
        (PackagingError("no entry point train.py in s3://b/code; name one that is there"), 400, "ValidationException"),
        (OperationalError("select", {}, Exception("database is locked")), 503, "ServiceUnavailable"),
        (ZeroDivisionError("secret detail"), 500, "InternalFailure"),
    ],
)
def test_what_an_operation_raises_becomes_the_wires_error(answering, error, status, code):
    exchange = call(answering(raising(error)), "DescribeTrainingJob", NAME)
    assert (exchange.status, exchange.body["__type"], exchange.headers["x-amzn-errortype"]) == (status, code, code)
    assert ("retry-after" in exchange.headers) == (status == 503)


def test_a_bug_tells_the_client_its_request_id_and_the_log_its_traceback(answering, caplog):
    exchange = call(answering(raising(ZeroDivisionError("secret detail"))), "DescribeTrainingJob", NAME)
    request_id = exchange.headers["x-amzn-requestid"]
    assert request_id in exchange.body["message"]
    assert "secret" not in exchange.body["message"]
    assert request_id in caplog.text
    assert "ZeroDivisionError: secret detail" in caplog.text


def test_an_answer_that_is_not_of_its_shape_is_a_bug_too(answering, caplog):
    exchange = call(answering(lambda *_: {"Nonsense": 1}), "DescribeTrainingJob", NAME)
    assert (exchange.status, exchange.body["__type"]) == (500, "InternalFailure")
    assert "no member Nonsense" in caplog.text


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("SageMaker.BakeBread", "'SageMaker.BakeBread' is no operation of this API; GET / lists those that are"),
        ("SageMaker.CreateNotebookInstance", "'SageMaker.CreateNotebookInstance' is not supported by raymaker"),
        ("DynamoDB_20120810.ListTables", "is no operation of this API"),
        ("Logs_20140328.DescribeTrainingJob", "is no operation of this API"),
        ("SageMaker.", "is no operation of this API"),
        ("SageMaker.__class__", "is no operation of this API"),
        ("", "the request names no operation"),
        ("\xff\x1b" * 5000, r"\xff\x1b"),
    ],
)
def test_an_unknown_operation_is_named(answering, target, message):
    exchange = ask(answering(raising(AssertionError())), Exchange([b"{}"]), x_amz_target=target)
    assert (exchange.status, exchange.body["__type"]) == (400, "UnknownOperationException")
    assert message in exchange.body["message"]
    assert len(exchange.body["message"]) < 600


def test_a_body_declared_too_large_is_refused_before_any_of_it_is_read(answering):
    app = answering(raising(AssertionError()), body_limit_bytes=100)
    exchange = ask(app, Exchange([b"x"]), content_length="101", x_amz_target="SageMaker.DescribeTrainingJob")
    assert (exchange.status, exchange.body["__type"], exchange.received_count) == (413, "RequestTooLarge", 0)
    assert exchange.headers["connection"] == "close"


def test_a_body_in_pieces_is_refused_as_soon_as_it_is_over_the_limit(answering):
    app = answering(raising(AssertionError()), body_limit_bytes=100)
    exchange = ask(app, Exchange([b"x" * 60] * 1000), x_amz_target="SageMaker.DescribeTrainingJob")
    assert (exchange.status, exchange.received_count) == (413, 2)


def test_a_body_that_never_ends_is_refused_at_the_deadline(answering):
    app = answering(raising(AssertionError()), receipt_deadline_s=0.0)
    exchange = ask(app, Exchange([b"{"], "say nothing more"), x_amz_target="SageMaker.DescribeTrainingJob")
    assert (exchange.status, exchange.body["__type"]) == (408, "RequestTimeout")


def test_a_client_that_hangs_up_is_not_answered(answering):
    exchange = ask(answering(raising(AssertionError())), Exchange([b"{"], "hang up"), x_amz_target="SageMaker.X")
    assert exchange.sent == []


def test_more_requests_than_may_wait_are_asked_to_come_again(answering):
    exchange = call(answering(raising(AssertionError()), waiting_limit=0), "DescribeTrainingJob", NAME)
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("status", "http_status", "code", "message"),
    [
        ("Creating", 400, "ValidationError", "Endpoint digits of account 123456789012 is Creating, not InService"),
        ("InService", 503, "ServiceUnavailable", "Endpoint digits is InService but cannot be reached just now"),
    ],
)
def test_an_invocation_that_finds_no_route_is_told_the_endpoints_status(answering, status, http_status, code, message):
    app = answering(lambda _, request: {"EndpointName": request["EndpointName"], "EndpointStatus": status})
    exchange = ask(app, Exchange([b"1,2,3"]), path="/endpoints/digits/invocations")
    assert (exchange.status, exchange.headers["x-amzn-errortype"]) == (http_status, code)
    assert message in exchange.body["Message"]


@pytest.mark.parametrize("name", ["digits", "", "..", "%00", "a b", "x" * 5000, "%ff"])
def test_an_invocation_of_no_endpoint_is_told_so_in_the_runtimes_words(answering, name):
    app = answering(raising(ValidationException('Could not find endpoint "digits".')))
    exchange = ask(app, Exchange([b"1,2,3"]), path=f"/endpoints/{name}/invocations")
    assert (exchange.status, exchange.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert exchange.body["Message"].startswith("Endpoint ")
    assert exchange.body["Message"].endswith(" of account 123456789012 not found.")


@pytest.mark.parametrize("path", ["/ping", "/healthz"])
def test_health_is_answered(answering, path):
    exchange = ask(answering(raising(AssertionError())), Exchange([]), method="GET", path=path)
    assert (exchange.status, exchange.body) == (200, {"status": "ok"})


def test_whoever_opens_the_address_is_told_what_answers_there(answering):
    exchange = ask(answering(raising(AssertionError())), Exchange([]), method="GET")
    assert exchange.body["service"] == "raymaker"
    assert {"GetLogEvents", "GetCallerIdentity"} <= set(exchange.body["operations"])


@pytest.mark.parametrize(("method", "path", "status"), [("PUT", "/", 405), ("GET", "/x", 404), ("POST", "/x", 404)])
def test_other_paths_and_methods_are_refused(answering, method, path, status):
    exchange = ask(answering(raising(AssertionError())), Exchange([b""]), method=method, path=path)
    assert exchange.status == status
    assert "POST API requests to /" in exchange.body["message"]


def test_the_server_may_start_it_and_end_it(answering):
    app = answering(raising(AssertionError()))
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
