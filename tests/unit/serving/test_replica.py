"""When a silent container counts as hung, and how its log stream is named."""

from __future__ import annotations

import threading

import pytest

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.herald import Herald
from raymaker.serving.kept_container import SILENCE_S, is_hung, log_stream_arn
from raymaker.serving.spec import EndpointSpec, VariantSpec


@pytest.mark.parametrize(
    ("silent_s", "pending_count", "hung"),
    [
        (SILENCE_S, 0, False),
        (SILENCE_S + 1, 0, True),
        (SILENCE_S + 1, 1, False),
        (SILENCE_S + 60, 1, False),
        (SILENCE_S + 61, 1, True),
    ],
)
def test_a_container_may_be_silent_for_as_long_as_its_requests_may_take(
    silent_s: float, pending_count: int, *, hung: bool
) -> None:
    assert is_hung(silent_s, pending_count, invocation_timeout_s=60) is hung


@pytest.mark.parametrize(
    ("endpoint_arn", "stream_arn"),
    [
        (
            "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/e",
            "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/Endpoints/e:log-stream:v/r",
        ),
        ("", ""),
    ],
)
def test_the_log_stream_lies_where_the_endpoint_lies(endpoint_arn: str, stream_arn: str) -> None:
    variant = VariantSpec("v", 1, InstanceType("local", Resources()), ScoringSpec())
    spec = EndpointSpec("e", "c", 1, (variant,), endpoint_arn=endpoint_arn)
    assert log_stream_arn(spec, "v/r") == stream_arn


def test_a_report_that_fails_does_not_keep_the_next_from_being_told() -> None:
    herald, told = Herald(), threading.Event()
    herald.tell(lambda: 1 / 0)
    herald.tell(told.set)
    herald.finish()
    assert told.is_set()
