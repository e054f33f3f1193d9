"""What travels between boto3, an endpoint and its container, and what is refused by name."""

from __future__ import annotations

import json

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from requests.structures import CaseInsensitiveDict

from raymaker.serving import runtime_wire as wire

MODEL = ServiceModel(Loader().load_service_model("sagemaker-runtime", "service-2"), "sagemaker-runtime")
INVOKE = MODEL.operation_model("InvokeEndpoint")
ARN = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/e:log-stream:v/1"


def parse(answer: wire.WireAnswer) -> dict:
    """Read an answer as boto3 does."""
    headers = CaseInsensitiveDict({name.decode(): value.decode() for name, value in answer.headers})
    response = {"status_code": answer.status, "headers": headers, "body": answer.body}
    return create_parser("rest-json").parse(response, INVOKE.output_shape)


def refusal(headers: list[tuple[bytes, bytes]]) -> dict:
    """The error that a request with these headers gets."""
    with pytest.raises(wire.Refusal) as refused:
        wire.container_headers(headers, ["main"])
    return parse(refused.value.answer)["Error"]


def test_every_header_of_the_service_model_is_either_forwarded_or_refused() -> None:
    named = {
        shape.serialization["name"].lower().encode()
        for shape in INVOKE.input_shape.members.values()
        if shape.serialization.get("location") == "header"
    }
    assert named == set(wire.FORWARDED) | set(wire.REFUSED)


def test_header_limits_are_those_of_the_service_model() -> None:
    for name, rule in wire.FORWARDED.items():
        shape = INVOKE.input_shape.members[rule.parameter]
        assert shape.serialization["name"].lower().encode() == name
        assert shape.metadata["max"] == rule.max_bytes


def test_the_content_type_travels_verbatim_and_credentials_do_not_travel() -> None:
    sent = [
        (b"authorization", b"AWS4-HMAC-SHA256 Credential=..."),
        (b"cookie", b"secret=1"),
        (b"content-type", b"text/csv; charset=utf-8"),
        (b"x-amzn-sagemaker-custom-attributes", b"trace=7"),
    ]
    assert wire.container_headers(sent, ["main"]) == sent[2:]


def test_the_endpoints_own_variant_may_be_named() -> None:
    wire.container_headers([(b"x-amzn-sagemaker-target-variant", b"main")], ["main"])


@pytest.mark.parametrize(
    ("header", "value", "named"),
    [
        (b"x-amzn-sagemaker-target-variant", b"other", "variant other"),
        (b"x-amzn-sagemaker-target-model", b"a.tar.gz", "TargetModel"),
        (b"x-amzn-sagemaker-target-container-hostname", b"second", "TargetContainerHostname"),
        (b"x-amzn-sagemaker-inference-component", b"part", "InferenceComponentName"),
        (b"x-amzn-sagemaker-enable-explanations", b"`true`", "EnableExplanations"),
        (b"x-amzn-sagemaker-custom-attributes", b"x" * 1025, "CustomAttributes"),
        (b"x-amzn-sagemaker-custom-attributes", "é".encode(), "CustomAttributes"),
        (b"x-amzn-sagemaker-inference-id", b"", "InferenceId"),
        (b"x-amzn-sagemaker-session-id", b"-starts-wrong", "SessionId"),
        (b"content-type", b"\xff", "ContentType"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(header: bytes, value: bytes, named: str) -> None:
    error = refusal([(header, value)])
    assert error["Code"] == "ValidationError"
    assert named in error["Message"]


def test_a_success_says_which_variant_gave_it() -> None:
    attributes = (b"x-amzn-sagemaker-custom-attributes", b"a")
    sent = [(b"content-type", b"application/json"), (b"server", b"gunicorn"), attributes]
    parsed = parse(wire.success(200, sent, b"1", "main"))
    assert parsed["InvokedProductionVariant"] == "main"
    assert parsed["ContentType"] == "application/json"
    assert parsed["CustomAttributes"] == "a"
    assert b"server" not in dict(wire.success(200, sent, b"", "main").headers)


def test_a_model_error_carries_the_containers_status_and_words() -> None:
    parsed = parse(wire.model_error(500, b"no such \xff column", ARN))
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert parsed["Error"]["Code"] == "ModelError"
    assert "server error (500)" in parsed["Error"]["Message"]
    assert json.loads(wire.model_error(500, b"no such column", ARN).body) == {
        "Message": parsed["Error"]["Message"].replace(" � ", " "),
        "OriginalStatusCode": 500,
        "OriginalMessage": "no such column",
        "LogStreamArn": ARN,
    }


def test_a_huge_error_page_of_the_container_is_cut() -> None:
    assert len(wire.model_error(500, b"x" * 1_000_000, ARN).body) < 3 * wire.ORIGINAL_MESSAGE_CHARS


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (wire.too_large(10), "ValidationError", 413),
        (wire.too_slow(60), "ValidationError", 408),
        (wire.not_ready("wait"), "ModelNotReadyException", 429),
        (wire.overloaded("busy"), "ServiceUnavailable", 503),
        (wire.error("InternalFailure", "oops"), "InternalFailure", 500),
        (wire.model_failed("it died", ARN), "ModelError", 424),
    ],
)
def test_errors_have_the_code_and_status_that_boto3_knows(answer: wire.WireAnswer, code: str, status: int) -> None:
    parsed = parse(answer)
    assert (parsed["Error"]["Code"], parsed["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert (b"retry-after" in dict(answer.headers)) == (status in {429, 503})


def test_error_codes_and_statuses_are_those_of_the_service_model() -> None:
    known = {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in INVOKE.error_shapes}
    assert wire.STATUS.items() <= known.items()
