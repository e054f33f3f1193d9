"""InvokeEndpointAsync on the wire: what is asked for by which header, what is refused, and what is told at the end."""

from __future__ import annotations

import json

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from raymaker.serving import async_wire
from raymaker.serving.async_queue import AsyncInvocation, delay_before
from raymaker.serving.runtime_wire import PREFIX, Refusal
from raymaker.serving.spec import AsyncSpec

MODEL = ServiceModel(Loader().load_service_model("sagemaker-runtime", "service-2"), "sagemaker-runtime")
INVOKE = MODEL.operation_model("InvokeEndpointAsync")
NOW = 1_700_000_000.0
SPEC = AsyncSpec("s3://b/out", "s3://b/failed")


def read(body: bytes = b"", spec: AsyncSpec = SPEC, **headers: str) -> AsyncInvocation:
    """Read a request with these parameters, named as boto3 does."""
    sent = [
        (INVOKE.input_shape.members[name].serialization["name"].lower().encode(), value.encode())
        for name, value in headers.items()
    ]
    told = [(b"content-type", b"text/csv")]
    return async_wire.read_invocation(spec, "e", sent, told, body, made_up_id="id-1", now=NOW)


def refusal(body: bytes = b"", **headers: str) -> str:
    with pytest.raises(Refusal) as caught:
        read(body, **headers)
    return str(json.loads(caught.value.answer.body)["Message"])


def test_what_is_not_said_is_sagemakers_default() -> None:
    assert read(InputLocation="s3://b/in.csv") == AsyncInvocation(
        id="id-1",
        endpoint_name="e",
        accepted_at=NOW,
        expires_at=NOW + 6 * 3600,
        headers=(("content-type", "text/csv"),),
        output_uri="s3://b/out/id-1.out",
        failure_uri="s3://b/failed/id-1-error.out",
        inference_id="id-1",
        timeout_s=900,
        input_uri="s3://b/in.csv",
    )


def test_every_parameter_is_honoured() -> None:
    found = read(
        InputLocation="file:///data/in.csv",
        RequestTTLSeconds="60",
        InvocationTimeoutSeconds="3600",
        InferenceId="mine",
        S3OutputPathExtension="2026/may/",
        Filename="answer.json",
    )
    assert (found.expires_at, found.timeout_s, found.inference_id) == (NOW + 60, 3600, "mine")
    assert found.output_uri == "s3://b/out/2026/may/answer.json"
    assert read(b"1,2").body == b"1,2"
    assert read(b"1,2", AsyncSpec("s3://b/out")).failure_uri == "s3://b/out/id-1-error.out"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "give InputLocation, the URI of the input, or a Body"),
        ({"InputLocation": "/etc/passwd"}, "InputLocation is not valid"),
        ({"InputLocation": "s3://b/x", "RequestTTLSeconds": "59"}, "RequestTTLSeconds is not valid"),
        ({"InputLocation": "s3://b/x", "InvocationTimeoutSeconds": "soon"}, "InvocationTimeoutSeconds is not valid"),
        (
            {"InputLocation": "s3://b/x", "InvocationTimeoutSeconds": "9" * 99},
            "InvocationTimeoutSeconds is not valid",
        ),
        ({"InputLocation": "s3://b/x", "S3OutputPathExtension": "../../x"}, "leads out of the output location"),
        ({"InputLocation": "s3://b/x", "Filename": "../x"}, "Filename is not valid"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(headers: dict[str, str], said: str) -> None:
    assert said in refusal(**headers)


def test_both_an_input_location_and_a_body_are_one_too_many() -> None:
    assert "one of them" in refusal(b"1", InputLocation="s3://b/x")


def test_the_acknowledgement_names_both_places_and_the_id() -> None:
    answer = async_wire.accepted(read(InputLocation="s3://b/in.csv"))
    assert answer.status == 202
    headers = dict(answer.headers)
    assert headers[PREFIX + b"outputlocation"] == b"s3://b/out/id-1.out"
    assert headers[PREFIX + b"failurelocation"] == b"s3://b/failed/id-1-error.out"
    assert json.loads(answer.body) == {"InferenceId": "id-1"}


def test_notices_say_how_it_ended_and_where_that_lies() -> None:
    invocation = read(InputLocation="s3://b/in.csv")
    good = async_wire.notice_of(invocation, content_type="text/csv", failure_reason=None, now=NOW + 1)
    assert good["invocationStatus"] == "Completed"
    assert good["responseParameters"] == {"contentType": "text/csv", "outputLocation": "s3://b/out/id-1.out"}
    assert good["requestParameters"] == {
        "endpointName": "e",
        "inputLocation": "s3://b/in.csv",
        "contentType": "text/csv",
    }
    assert (good["receivedTime"], good["eventTime"]) == ("2023-11-14T22:13:20.000Z", "2023-11-14T22:13:21.000Z")
    bad = async_wire.notice_of(invocation, content_type=None, failure_reason="no", now=NOW)
    assert (bad["invocationStatus"], bad["failureReason"]) == ("Failed", "no")
    assert bad["responseParameters"] == {"failureLocation": "s3://b/failed/id-1-error.out"}


def test_delays_grow_up_to_five_minutes() -> None:
    assert [delay_before(attempt) for attempt in (1, 2, 3, 9, 10, 10_000)] == [1, 2, 4, 256, 300, 300]
