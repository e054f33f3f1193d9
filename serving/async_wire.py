"""InvokeEndpointAsync on the wire: what its headers ask for, how it is acknowledged, what is told at its end.

Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from raymaker.actors.storage import child_uri
from raymaker.serving import runtime_wire as wire
from raymaker.serving.async_queue import AsyncInvocation
from raymaker.serving.runtime_wire import PREFIX, Headers, Refusal, WireAnswer
from raymaker.serving.spec import AsyncSpec

DEFAULT_TTL_S = 6 * 3600
BODY_LIMIT_BYTES = 128_000
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S(.*\S)?")
_EXTENSION = re.compile(r"[a-zA-Z0-9!_.*'()/-]{1,512}")
_FILENAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*(\.[a-zA-Z0-9_-]*)?")


def read_invocation(
    spec: AsyncSpec, endpoint_name: str, headers: Headers, told: Headers, body: bytes, *, made_up_id: str, now: float
) -> AsyncInvocation:
    """Read one request. `headers` are all that it has, `told` those for the model.

    Raises Refusal that names the parameter.
    """
    given = {name: value.decode("latin-1") for name, value in headers}
    input_uri = _matching(given, "InputLocation", b"inputlocation", _URI)
    if (input_uri is None) == (not body):
        raise Refusal(wire.invalid("give InputLocation, the URI of the input, or a Body; one of them"))
    extension = _matching(given, "S3OutputPathExtension", b"s3outputpathextension", _EXTENSION) or ""
    if ".." in extension.split("/"):
        raise Refusal(wire.invalid("S3OutputPathExtension leads out of the output location: leave .. out"))
    name = _matching(given, "Filename", b"filename", _FILENAME) or f"{made_up_id}.out"
    folder = child_uri(spec.output_uri, extension.strip("/")) if extension else spec.output_uri
    return AsyncInvocation(
        id=made_up_id,
        endpoint_name=endpoint_name,
        accepted_at=now,
        expires_at=now + _number(given, "RequestTTLSeconds", b"requestttlseconds", (60, 21_600), DEFAULT_TTL_S),
        headers=tuple((key.decode("latin-1"), value.decode("latin-1")) for key, value in told),
        output_uri=child_uri(folder, name),
        failure_uri=child_uri(spec.failure_uri or spec.output_uri, f"{made_up_id}-error.out"),
        inference_id=given.get(PREFIX + b"inference-id", made_up_id),
        timeout_s=_number(
            given, "InvocationTimeoutSeconds", b"invocationtimeoutseconds", (1, 3600), spec.invocation_timeout_s
        ),
        input_uri=input_uri,
        body=body if input_uri is None else None,
    )


def accepted(invocation: AsyncInvocation) -> WireAnswer:
    """Acknowledge a request that is in the queue."""
    headers = [
        (b"content-type", b"application/json"),
        (PREFIX + b"outputlocation", invocation.output_uri.encode()),
        (PREFIX + b"failurelocation", invocation.failure_uri.encode()),
    ]
    return WireAnswer(202, headers, json.dumps({"InferenceId": invocation.inference_id}).encode())


def notice_of(
    invocation: AsyncInvocation, *, content_type: str | None, failure_reason: str | None, now: float
) -> dict[str, Any]:
    """Say how an invocation ended, in the members of SageMaker's notifications. A failure has a reason."""
    told = dict(invocation.headers)
    asked = {
        "endpointName": invocation.endpoint_name,
        "inputLocation": invocation.input_uri,
        "contentType": told.get("content-type"),
        "accept": told.get("accept"),
        "customAttributes": told.get("x-amzn-sagemaker-custom-attributes"),
    }
    has_failed = failure_reason is not None
    location = {"failureLocation": invocation.failure_uri} if has_failed else {"outputLocation": invocation.output_uri}
    answered = {"contentType": content_type, **location}
    notice = {
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
        "eventTime": _iso(now),
        "receivedTime": _iso(invocation.accepted_at),
        "invocationStatus": "Failed" if has_failed else "Completed",
        "failureReason": failure_reason,
        "requestParameters": _given(asked),
        "responseParameters": _given(answered),
        "inferenceId": invocation.inference_id,
    }
    return _given(notice)


def _matching(given: Mapping[bytes, str], parameter: str, name: bytes, pattern: re.Pattern[str]) -> str | None:
    value = given.get(PREFIX + name)
    if value is not None and (len(value) > 1024 or not pattern.fullmatch(value)):  # noqa: PLR2004 - the model's limit
        raise Refusal(wire.invalid(f"{parameter} is not valid: {value[:100]!a}"))
    return value


def _number(given: Mapping[bytes, str], parameter: str, name: bytes, bounds: tuple[int, int], default: float) -> float:
    value = given.get(PREFIX + name)
    if value is None:
        return default
    least, most = bounds
    if not value.isdecimal() or not least <= int(value[:9]) <= most:
        raise Refusal(wire.invalid(f"{parameter} is not valid: give whole seconds from {least} to {most}"))
    return int(value)


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
