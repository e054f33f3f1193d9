"""The request's word over the container's own over the defaults, within what may lie in memory."""

from __future__ import annotations

import json

import pytest

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.transform.limits import ExecutionParameters, environment, read_execution_parameters, settle
from raymaker.serving.transform.spec import MIB, TransformInput, TransformOutput, TransformSpec


def spec(**asked):
    where = TransformInput("file:///in"), TransformOutput("file:///out")
    return TransformSpec("job", "arn", 1, InstanceType("local", Resources()), ScoringSpec(image="i"), *where, **asked)


@pytest.mark.parametrize(
    ("asked", "told", "strategy", "payload_mib", "concurrency"),
    [
        ({}, {}, "MultiRecord", 6, 1),
        ({}, {"strategy": "SingleRecord", "max_payload_mib": 2, "max_concurrency": 8}, "SingleRecord", 2, 8),
        (
            {"strategy": "MultiRecord", "max_payload_mib": 3, "max_concurrency": 2},
            {"strategy": "SingleRecord", "max_payload_mib": 2, "max_concurrency": 8},
            "MultiRecord",
            3,
            2,
        ),
        ({"max_concurrency": 4}, {"max_payload_mib": 1}, "MultiRecord", 1, 4),
        ({"max_concurrency": 50}, {}, "MultiRecord", 2, 50),
        ({"max_payload_mib": 50}, {"max_concurrency": 8}, "MultiRecord", 50, 2),
        ({}, {"max_payload_mib": 500, "max_concurrency": 500}, "MultiRecord", 100, 1),
        ({}, {"max_concurrency": 64}, "MultiRecord", 6, 16),
    ],
)
def test_the_first_who_says_something_is_heard(asked, told, strategy, payload_mib, concurrency):
    limits = settle(spec(**asked), ExecutionParameters(**told))
    assert limits.strategy == strategy
    assert (limits.max_payload_bytes, limits.max_concurrency) == (payload_mib * MIB, concurrency)


@pytest.mark.parametrize(("asked", "told"), [({"max_payload_mib": 0}, {}), ({}, {"max_payload_mib": 0})])
def test_zero_means_that_a_payload_has_no_limit(asked, told):
    limits = settle(spec(**asked, max_concurrency=8), ExecutionParameters(**told))
    assert (limits.max_payload_bytes, limits.max_concurrency) == (None, 8)


def test_a_container_says_what_it_wants():
    body = {"MaxConcurrentTransforms": 8, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1}
    assert read_execution_parameters(200, json.dumps(body).encode()) == (
        ExecutionParameters("SingleRecord", 1, 8),
        None,
    )
    assert read_execution_parameters(200, b"{}") == (ExecutionParameters(), None)
    assert read_execution_parameters(404, b"no such path") == (ExecutionParameters(), None)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"", "status 500"),
        (200, b"hello", "hello"),
        (200, b'{"BatchStrategy": "ALL"}', "ALL"),
        (200, b'{"MaxPayloadInMB": -1}', "-1"),
        (200, b'{"MaxConcurrentTransforms": "8"}', "8"),
        (200, b'{"MaxConcurrentTransforms": true}', "True"),
        (200, b"[" * 100_000, None),
    ],
)
def test_an_answer_of_no_use_is_told_and_changes_nothing(status, body, said):
    parameters, complaint = read_execution_parameters(status, body)
    assert parameters == ExecutionParameters()
    assert complaint is not None
    assert said is None or said in complaint


def test_the_container_hears_only_what_the_request_says():
    assert environment(spec()) == {"SAGEMAKER_BATCH": "true"}
    assert environment(spec(strategy="SingleRecord", max_payload_mib=0, max_concurrency=4)) == {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "4",
    }


def test_limits_are_told_in_the_requests_words():
    assert settle(spec(max_payload_mib=0), ExecutionParameters()).describe() == (
        "BatchStrategy MultiRecord, MaxPayloadInMB 0, MaxConcurrentTransforms 1"
    )
