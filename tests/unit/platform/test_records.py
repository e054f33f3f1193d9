"""Records: what is worked out from what is kept."""

from __future__ import annotations

import dataclasses

import pytest

from raymaker.platform import transitions
from raymaker.platform.records import SecondaryStatus, TrainingJobStatus

JOB = transitions.create_training_job("job", "arn:job", "000000000000", {}, 10.0)


def test_states_are_the_wires_own_words():
    assert f"{TrainingJobStatus.IN_PROGRESS} {SecondaryStatus.MAX_RUNTIME_EXCEEDED}" == "InProgress MaxRuntimeExceeded"


def test_exactly_three_states_are_ends():
    assert {status for status in TrainingJobStatus if status.ended} == {"Completed", "Failed", "Stopped"}


@pytest.mark.parametrize(
    ("started", "ended", "expected"),
    [(None, None, None), (5.0, None, None), (None, 9.0, None), (5.0, 9.4, 4), (5.0, 4.0, 0)],
)
def test_training_time_is_whole_seconds_between_start_and_end(started, ended, expected):
    assert dataclasses.replace(JOB, started_at=started, ended_at=ended).training_time_s == expected


@pytest.mark.parametrize(
    ("status", "model_uri", "expected"),
    [
        (TrainingJobStatus.COMPLETED, "s3://b/m", True),
        (TrainingJobStatus.STOPPED, "s3://b/m", True),
        (TrainingJobStatus.FAILED, "s3://b/m", False),
        (TrainingJobStatus.IN_PROGRESS, "s3://b/m", False),
        (TrainingJobStatus.COMPLETED, None, False),
    ],
)
def test_only_a_job_that_ended_without_failing_and_stored_one_has_a_model(status, model_uri, expected):
    assert dataclasses.replace(JOB, status=status, model_uri=model_uri).has_model is expected


def test_the_message_is_that_of_the_last_transition():
    assert JOB.message == "Waiting for the platform to place the job"
