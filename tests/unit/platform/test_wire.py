"""Bytes to values and back, without a server."""

import json
from datetime import UTC, datetime

import pytest

from raymaker.platform import query, wire
from raymaker.platform.errors import (
    InternalFailure,
    SerializationException,
    ServiceUnavailable,
    ValidationException,
)
from raymaker.platform.shapes import operation_model

DESCRIBE = operation_model("sagemaker", "DescribeTrainingJob")
METRICS = operation_model("sagemaker", "GetTrainingMetrics")
IDENTITY = operation_model("sts", "GetCallerIdentity")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"5",
        b"{} {}",
        b"{'a': 1}",
        b"\xff\xfe",
        b'\xef\xbb\xbf{"TrainingJobName": "x"}',
        b'{"TrainingJobName": NaN}',
        b'{"TrainingJobName": -Infinity}',
        b'{"TrainingJobName": ' + b"9" * 5000 + b"}",
        b'{"TrainingJobName": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        b'{"TrainingJobName": "tab\there"}',
        b'{"TrainingJobName": "\\ud8',
    ],
)
def test_what_is_no_json_object_is_refused_as_such(body):
    with pytest.raises(SerializationException, match="the body"):
        wire.read_request(DESCRIBE, body)


@pytest.mark.parametrize("name", ["1e999", "-1e999", "9" * 4000, '"\\ud800"', '"\\u0000"', "[" * 400 + "]" * 400])
def test_json_that_holds_odd_values_is_refused_by_the_name_of_the_member(name):
    with pytest.raises(ValidationException, match="at 'trainingJobName'"):
        wire.read_request(DESCRIBE, b'{"TrainingJobName": ' + name.encode() + b"}")


def test_of_a_key_that_stands_twice_the_last_counts():
    body = b'{"TrainingJobName": "a", "TrainingJobName": "b"}'
    assert wire.read_request(DESCRIBE, body) == {"TrainingJobName": "b"}


def test_an_empty_body_is_an_empty_request():
    with pytest.raises(ValidationException, match="Value null at 'trainingJobName'"):
        wire.read_request(DESCRIBE, b"")


def test_an_answer_goes_out_in_its_shape_with_times_in_seconds_and_without_what_is_none():
    moment = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
    answer = wire.write_answer(
        DESCRIBE,
        {
            "TrainingJobName": "größe",
            "CreationTime": moment,
            "FailureReason": None,
            "HyperParameters": {"lr": "1"},
            "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": moment, "EndTime": None}],
            "EnableManagedSpotTraining": False,
            "TrainingTimeInSeconds": 5,
        },
    )
    assert (answer.status, answer.content_type) == (200, "application/x-amz-json-1.1")
    assert json.loads(answer.body) == {
        "TrainingJobName": "größe",
        "CreationTime": 1767323045.25,
        "HyperParameters": {"lr": "1"},
        "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": 1767323045.25}],
        "EnableManagedSpotTraining": False,
        "TrainingTimeInSeconds": 5,
    }


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"TrainingJobNames": "x"}, "DescribeTrainingJobResponse has no member TrainingJobNames"),
        ({"ResourceConfig": {"Instances": 1}}, "ResourceConfig has no member Instances"),
        ({"TrainingJobName": 5}, "TrainingJobName wants a string"),
        ({"CreationTime": 1767323045.25}, "Timestamp wants a timestamp"),
        ({"CreationTime": datetime(2026, 1, 2)}, "Timestamp wants a timestamp"),  # noqa: DTZ001 - what must be refused
        ({"TrainingTimeInSeconds": 5.5}, "TrainingTimeInSeconds wants a integer"),
        ({"TrainingTimeInSeconds": True}, "TrainingTimeInSeconds wants a integer"),
        ({"EnableManagedSpotTraining": 1}, "Boolean wants a boolean"),
    ],
)
def test_an_answer_that_is_not_of_its_shape_is_a_bug_that_shows(answer, message):
    with pytest.raises(TypeError, match=message):
        wire.write_answer(DESCRIBE, answer)


def test_metrics_that_are_not_finite_go_out_as_words_that_botocore_reads():
    moment = datetime.fromtimestamp(0, UTC)
    values = [0.5, 3, float("nan"), float("inf"), float("-inf")]
    metrics = [{"MetricName": "loss", "Value": value, "Timestamp": moment} for value in values]
    body = json.loads(wire.write_answer(METRICS, {"Metrics": metrics}).body)
    assert [metric["Value"] for metric in body["Metrics"]] == [0.5, 3, "NaN", "Infinity", "-Infinity"]


def test_an_error_carries_its_code_in_the_body_and_in_the_header():
    answer = wire.write_error(ValidationException("no such job: \ud800"))
    assert answer.status == 400
    assert json.loads(answer.body) == {"__type": "ValidationException", "message": "no such job: \ud800"}
    assert answer.headers == {"x-amzn-ErrorType": "ValidationException"}


def test_an_unavailable_platform_says_when_to_come_again():
    assert wire.write_error(ServiceUnavailable("locked", retry_after_s=2)).headers["Retry-After"] == "2"


@pytest.mark.parametrize("body", [b"\xff", b"Action", b"&".join(b"a%d=1" % n for n in range(200)), b"a=%ff"])
def test_what_is_no_form_is_refused_as_such(body):
    with pytest.raises(SerializationException, match="not a form"):
        query.read_form(body)


def test_a_field_that_stands_twice_in_a_form_is_refused():
    with pytest.raises(ValidationException, match="'Action' is given 2 times"):
        query.read_form(b"Action=A&Action=B")


def test_xml_is_escaped_in_answers_and_errors():
    assert b"<Account>&lt;&amp;</Account>" in query.write_answer(IDENTITY, {"Account": "<&"}, "id").body
    answer = query.write_error(InternalFailure("<b>"), "id")
    assert b"<Type>Receiver</Type><Code>InternalFailure</Code><Message>&lt;b&gt;</Message>" in answer.body
    with pytest.raises(TypeError, match="no member Name"):
        query.write_answer(IDENTITY, {"Name": "x"}, "id")
