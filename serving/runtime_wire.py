"""The sagemaker-runtime wire: which headers travel, what is refused, and how answers and errors look to boto3.

Pure: knows neither sockets nor containers. The limits are those of botocore's service model, which a test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from raymaker.serving import event_stream

Headers = list[tuple[bytes, bytes]]

PREFIX = b"x-amzn-sagemaker-"
TARGET_VARIANT = PREFIX + b"target-variant"
TARGET_MODEL = PREFIX + b"target-model"
TARGET_CONTAINER = PREFIX + b"target-container-hostname"
TRACE_HEADER = b"x-raymaker-graph-trace"
"""Asks for the trace of a graph in a request, and carries it in the answer."""
ASCII = re.compile(rb"[\x20-\x7e\t]*")
PRINTED = re.compile(rb"\S[\x20-\x7e]*")
NAME = re.compile(rb"[a-zA-Z0-9](-*[a-zA-Z0-9])*")


@dataclass(frozen=True)
class HeaderRule:
    """A request header that the wire knows: its parameter name in boto3, its longest value, and how it may look."""

    parameter: str
    max_bytes: int
    pattern: re.Pattern[bytes]


FORWARDED = {
    b"content-type": HeaderRule("ContentType", 1024, ASCII),
    b"accept": HeaderRule("Accept", 1024, ASCII),
    PREFIX + b"custom-attributes": HeaderRule("CustomAttributes", 1024, ASCII),
    PREFIX + b"inference-id": HeaderRule("InferenceId", 64, PRINTED),
    PREFIX + b"session-id": HeaderRule("SessionId", 256, re.compile(rb"NEW_SESSION|" + NAME.pattern)),
    PREFIX + b"prefix-aware-id": HeaderRule("PrefixAwareId", 64, PRINTED),
    TARGET_VARIANT: HeaderRule("TargetVariant", 63, NAME),
}
"""What reaches the container, verbatim. All else (credentials, cookies, …) stays here."""

STREAM_NAMES = {PREFIX + b"accept": b"accept"}
ASYNC_NAMES = {**STREAM_NAMES, PREFIX + b"content-type": b"content-type"}
"""Names that headers have where HTTP's own mean something else, and what the container knows them by."""

MODEL_RULE = {TARGET_MODEL: HeaderRule("TargetModel", 1024, PRINTED)}
"""What reaches the container of a multi-model endpoint too."""
CONTAINER_RULE = {TARGET_CONTAINER: HeaderRule("TargetContainerHostname", 63, NAME)}
"""What reaches the backend of an endpoint too whose containers are named by requests."""
TRACE_RULE = {TRACE_HEADER: HeaderRule("x-raymaker-graph-trace", 64, ASCII)}
"""What reaches the backend of an endpoint of several containers too."""

REFUSED = {
    TARGET_MODEL: "TargetModel, which only a multi-model endpoint has",
    TARGET_CONTAINER: "TargetContainerHostname, which only a multi-container endpoint of Mode Direct has",
    PREFIX + b"inference-component": "InferenceComponentName, which this platform does not have",
    PREFIX + b"enable-explanations": "EnableExplanations, which only an endpoint with an explainer has",
}

RETURNED = {
    b"content-type",
    PREFIX + b"custom-attributes",
    PREFIX + b"new-session-id",
    PREFIX + b"closed-session-id",
    TRACE_HEADER,
}

STREAMED = {b"content-type": PREFIX + b"content-type"}
"""The names of answers' headers where the answer is streamed."""

STATUS = {
    "ValidationError": 400,
    "ModelError": 424,
    "ModelNotReadyException": 429,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
}
RETRY_AFTER_S = 1
ORIGINAL_MESSAGE_CHARS = 2048


@dataclass(frozen=True)
class WireAnswer:
    """One whole answer to a client."""

    status: int
    headers: Headers
    body: bytes


class Refusal(Exception):
    """A request that is answered with an error; it carries the answer."""

    def __init__(self, answer: WireAnswer) -> None:
        super().__init__(answer.body.decode())
        self.answer = answer


def rules_for(*, multi_model: bool, has_graph: bool, is_direct: bool) -> Mapping[bytes, HeaderRule]:
    """Say what headers reach the backend of an endpoint of this kind."""
    return {
        **FORWARDED,
        **(MODEL_RULE if multi_model else {}),
        **(TRACE_RULE if has_graph else {}),
        **(CONTAINER_RULE if is_direct else {}),
    }


def container_headers(
    headers: Iterable[tuple[bytes, bytes]], variants: Sequence[str], rules: Mapping[bytes, HeaderRule] = FORWARDED
) -> Headers:
    """Pick what the container is told. Raises Refusal, naming the parameter, for what cannot be honoured."""
    picked: Headers = []
    for name, value in headers:
        rule = rules.get(name)
        if rule is not None:
            if len(value) > rule.max_bytes or not rule.pattern.fullmatch(value):
                raise Refusal(invalid(f"{rule.parameter} is not valid: at most {rule.max_bytes} plain characters"))
            picked.append((name, value))
        elif name in REFUSED:
            raise Refusal(invalid(f"this endpoint cannot honour {REFUSED[name]}: leave it out"))
    wanted = dict(picked).get(TARGET_VARIANT)
    if wanted is not None and wanted.decode() not in variants:
        there_are = f"its variant is {variants[0]}" if len(variants) == 1 else f"it has {', '.join(variants)}"
        raise Refusal(invalid(f"this endpoint has no variant {wanted.decode()}: {there_are}"))
    return picked


def rename(headers: Iterable[tuple[bytes, bytes]], names: Mapping[bytes, bytes]) -> Headers:
    """Name the headers of a streaming or an asynchronous request as an ordinary one has them.

    What boto3 itself accepts or sends is not what is between the caller and the model.
    """
    return [(names.get(name, name), value) for name, value in headers if name not in names.values()]


def success(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, variant: str) -> WireAnswer:
    """Wrap a container's answer: its own content type and attributes, and who gave it."""
    kept = [(name, value) for name, value in headers if name in RETURNED]
    return WireAnswer(status, [*kept, (b"x-amzn-invoked-production-variant", variant.encode())], body)


def stream_begins(status: int, headers: Iterable[tuple[bytes, bytes]], variant: str) -> WireAnswer:
    """Begin a streamed answer: the container's own content type beside that of the stream, and who answers."""
    kept = [(STREAMED.get(name, name), value) for name, value in headers if name in RETURNED]
    named = [(b"content-type", event_stream.CONTENT_TYPE), (b"x-amzn-invoked-production-variant", variant.encode())]
    return WireAnswer(status, [*kept, *named], b"")


def invalid(message: str, status: int = 400) -> WireAnswer:
    """A request that the client must change. `status` 413 and 408 tell HTTP's own word for it."""
    return error("ValidationError", message, status=status)


def too_large(limit_bytes: int) -> WireAnswer:
    """A body over the limit, declared or met while reading."""
    return invalid(f"HTTP content length exceeded {limit_bytes} bytes: send a smaller body", status=413)


def too_slow(timeout_s: float) -> WireAnswer:
    """A body that did not come."""
    return invalid(f"the body did not arrive within {timeout_s:g} s: send it faster, or less of it", status=408)


def model_error(status: int, body: bytes, log_stream_arn: str) -> WireAnswer:
    """The container answered with an error of its own: its status and words travel to the client."""
    said = body.decode(errors="replace")[:ORIGINAL_MESSAGE_CHARS]
    kind = "client" if status < 500 else "server"  # noqa: PLR2004 - HTTP's own border
    message = f'Received {kind} error ({status}) from the model with message "{said}". See its log: {log_stream_arn}'
    return _model_error(message, status, said, log_stream_arn)


def model_failed(reason: str, log_stream_arn: str) -> WireAnswer:
    """The container gave no answer: it died, hung or spoke no HTTP. OriginalStatusCode 0 says so, as SageMaker does."""
    return _model_error(f"The model did not answer: {reason}. See its log: {log_stream_arn}", 0, reason, log_stream_arn)


def not_ready(message: str) -> WireAnswer:
    """The container is being started or replaced."""
    return error("ModelNotReadyException", message)


def overloaded(message: str) -> WireAnswer:
    """More requests than this replica takes at once."""
    return error("ServiceUnavailable", message)


def too_many(pending_count: int, *, throttles: bool) -> WireAnswer:
    """More requests than a replica takes at once: for want of room, or as its owner has asked (`throttles`)."""
    message = f"{pending_count} requests are under way already. Try again shortly."
    return error("ThrottlingException", message, status=429) if throttles else overloaded(message)


def error(code: str, message: str, *, status: int | None = None, **members: str | int) -> WireAnswer:
    """Return an error as REST-JSON clients read it: the code in a header, the members in the body."""
    status = status or STATUS[code]
    headers = [(b"content-type", b"application/json"), (b"x-amzn-errortype", code.encode())]
    if status in {429, 503}:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    return WireAnswer(status, headers, json.dumps({"Message": message, **members}).encode())


def _model_error(message: str, status: int, said: str, log_stream_arn: str) -> WireAnswer:
    return error("ModelError", message, OriginalStatusCode=status, OriginalMessage=said, LogStreamArn=log_stream_arn)
