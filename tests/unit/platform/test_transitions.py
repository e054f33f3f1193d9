"""Every legal move of a training job and of an endpoint, and that every other one is refused or changes nothing."""

from __future__ import annotations

import dataclasses

import pytest

from raymaker.actors.reports import JobReport, Outcome, ReportRefused
from raymaker.platform import transitions
from raymaker.platform.phases import IllegalMove
from raymaker.platform.records import (
    Deployment,
    EndpointRecord,
    EndpointStatus,
    ResolvedContainer,
    ResolvedVariant,
    SecondaryStatus,
    TrainingJobRecord,
    TrainingJobStatus,
)

NOW = 1000.0


def new_job(**request) -> TrainingJobRecord:
    return transitions.create_training_job("job", "arn:job", "000000000000", request, 0.0)


def report(
    phase: str, outcome: Outcome | None = None, *, attempt: int = 1, message: str = "said", **facts
) -> JobReport:
    return JobReport("job", attempt, phase, message, NOW, outcome=outcome, **facts)


def end(outcome: Outcome, **facts) -> JobReport:
    return report(outcome.value, outcome, **facts)


WAITING = new_job()
PENDING = transitions.mark_pending(WAITING, "no room", NOW)
STARTED = transitions.start_attempt(WAITING, NOW)
DOWNLOADING = transitions.apply_report(STARTED, report("Downloading"), NOW)
TRAINING = transitions.apply_report(DOWNLOADING, report("Training", training_started_at=NOW), NOW)
UPLOADING = transitions.apply_report(TRAINING, report("Uploading"), NOW)
RESTARTING = transitions.lose_attempt(TRAINING, 1, "machine gone", NOW)
STOPPING = transitions.request_stop(TRAINING, NOW)
COMPLETED = transitions.apply_report(UPLOADING, end(Outcome.COMPLETED, model_uri="s3://b/model.tar.gz"), NOW)
FAILED = transitions.apply_report(TRAINING, end(Outcome.FAILED, failure_reason="AlgorithmError"), NOW)
STOPPED = transitions.apply_report(STOPPING, end(Outcome.STOPPED), NOW)
TIMED_OUT = transitions.apply_report(TRAINING, end(Outcome.TIMED_OUT), NOW)

RUNNING = [STARTED, DOWNLOADING, TRAINING, UPLOADING]
ENDED = [COMPLETED, FAILED, STOPPED, TIMED_OUT]


def state(job: TrainingJobRecord) -> tuple[str, str, int]:
    return str(job.status), str(job.secondary), job.attempt


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (WAITING, ("InProgress", "Starting", 0)),
        (PENDING, ("InProgress", "Pending", 0)),
        (STARTED, ("InProgress", "Starting", 1)),
        (transitions.start_attempt(PENDING, NOW), ("InProgress", "Starting", 1)),
        (DOWNLOADING, ("InProgress", "Downloading", 1)),
        (TRAINING, ("InProgress", "Training", 1)),
        (UPLOADING, ("InProgress", "Uploading", 1)),
        (RESTARTING, ("InProgress", "Restarting", 2)),
        (STOPPING, ("Stopping", "Stopping", 1)),
        (transitions.apply_report(STOPPING, report("Uploading"), NOW), ("Stopping", "Uploading", 1)),
        (transitions.apply_report(STOPPING, end(Outcome.COMPLETED), NOW), ("Completed", "Completed", 1)),
        (transitions.apply_report(STOPPING, end(Outcome.FAILED), NOW), ("Failed", "Failed", 1)),
        (transitions.request_stop(WAITING, NOW), ("Stopped", "Stopped", 0)),
        (transitions.request_stop(PENDING, NOW), ("Stopped", "Stopped", 0)),
        (transitions.request_stop(RESTARTING, NOW), ("Stopping", "Stopping", 2)),
        (transitions.lose_attempt(STOPPING, 1, "gone", NOW), ("Stopped", "Stopped", 1)),
        (COMPLETED, ("Completed", "Completed", 1)),
        (FAILED, ("Failed", "Failed", 1)),
        (STOPPED, ("Stopped", "Stopped", 1)),
        (TIMED_OUT, ("Stopped", "MaxRuntimeExceeded", 1)),
    ],
)
def test_legal_moves_lead_where_sagemaker_says(job, expected):
    assert state(job) == expected


@pytest.mark.parametrize("job", [*RUNNING, RESTARTING, STOPPING, *ENDED], ids=state)
def test_only_a_job_that_was_never_started_can_be_queued_or_started(job):
    with pytest.raises(IllegalMove, match=job.status):
        transitions.mark_pending(job, "no room", NOW)
    with pytest.raises(IllegalMove, match=job.status):
        transitions.start_attempt(job, NOW)


@pytest.mark.parametrize("job", ENDED, ids=state)
def test_an_ended_job_cannot_be_stopped(job):
    with pytest.raises(IllegalMove, match=job.status):
        transitions.request_stop(job, NOW)


@pytest.mark.parametrize("job", [*RUNNING, RESTARTING], ids=state)
def test_stopping_a_started_job_goes_by_way_of_stopping_and_keeps_the_time(job):
    stopping = transitions.request_stop(job, NOW)
    assert (stopping.status, stopping.secondary) == (TrainingJobStatus.STOPPING, SecondaryStatus.STOPPING)
    assert stopping.stop_requested_at == NOW


def test_asking_to_stop_twice_changes_nothing():
    assert transitions.request_stop(STOPPING, NOW + 1) is STOPPING


@pytest.mark.parametrize("phase", ["Downloading", "Training", "Uploading"])
@pytest.mark.parametrize("job", ENDED, ids=state)
def test_an_ended_job_refuses_every_further_phase(job, phase):
    with pytest.raises(ReportRefused, match="has ended"):
        transitions.apply_report(job, report(phase), NOW)


@pytest.mark.parametrize(
    ("job", "own"),
    [
        (COMPLETED, Outcome.COMPLETED),
        (FAILED, Outcome.FAILED),
        (STOPPED, Outcome.STOPPED),
        (TIMED_OUT, Outcome.TIMED_OUT),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_end_is_reached_once_and_its_own_repeat_is_taken(job, own):
    assert transitions.apply_report(job, end(own), NOW + 9) is job
    for other in set(Outcome) - {own}:
        with pytest.raises(ReportRefused, match="has ended"):
            transitions.apply_report(job, end(other), NOW)


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_another_attempts_report_is_refused(number, outcome):
    with pytest.raises(ReportRefused, match="attempt 2 is"):
        transitions.apply_report(RESTARTING, report("Training", outcome, attempt=number), NOW)


@pytest.mark.parametrize("job", [WAITING, PENDING], ids=state)
def test_a_job_that_was_not_started_takes_no_report(job):
    with pytest.raises(ReportRefused):
        transitions.apply_report(job, report("Training"), NOW)


@pytest.mark.parametrize("phase", ["Starting", "DownloadingTrainingImage", "Downloading"])
def test_a_phase_left_behind_changes_no_status_but_its_facts_are_kept(phase):
    later = transitions.apply_report(TRAINING, report(phase, image_digest="sha256:1"), NOW)
    assert later == dataclasses.replace(TRAINING, image_digest="sha256:1")


def test_training_told_after_a_stop_was_asked_does_not_undo_stopping():
    stopping = transitions.request_stop(DOWNLOADING, NOW)
    later = transitions.apply_report(stopping, report("Training", training_started_at=NOW), NOW)
    assert state(later) == ("Stopping", "Stopping", 1)
    assert later.started_at == NOW


@pytest.mark.parametrize("phase", ["Pending", "Restarting", "Stopping", "Completed", "Failed", "Dancing", ""])
def test_a_phase_that_no_attempt_can_be_in_is_an_error(phase):
    with pytest.raises(ValueError, match=r"phase|SecondaryStatus"):
        transitions.apply_report(TRAINING, report(phase), NOW)


def test_the_same_report_again_changes_nothing():
    assert transitions.apply_report(DOWNLOADING, report("Downloading"), NOW + 1) == DOWNLOADING


def test_a_new_message_in_the_same_phase_is_shown_without_a_new_transition():
    later = transitions.apply_report(DOWNLOADING, report("Downloading", message="3 of 9 MiB"), NOW + 1)
    assert later.message == "3 of 9 MiB"
    assert len(later.transitions) == len(DOWNLOADING.transitions)


def test_the_reason_to_wait_is_written_only_when_it_is_new():
    assert transitions.mark_pending(PENDING, "no room", NOW + 1) is PENDING
    assert transitions.mark_pending(PENDING, "less room", NOW + 1).message == "less room"


def test_an_interrupted_attempt_is_lost_and_fenced():
    lost = transitions.apply_report(TRAINING, report("Interrupted", message="machine gone"), NOW)
    assert lost == dataclasses.replace(RESTARTING)
    with pytest.raises(ReportRefused):
        transitions.apply_report(lost, end(Outcome.COMPLETED), NOW)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_losing_an_attempt_that_is_not_the_jobs_changes_nothing(number):
    assert transitions.lose_attempt(RESTARTING, number, "gone", NOW) is RESTARTING


@pytest.mark.parametrize("job", [WAITING, PENDING, *ENDED], ids=state)
def test_a_job_without_a_running_attempt_loses_none(job):
    assert transitions.lose_attempt(job, job.attempt, "gone", NOW) is job


@pytest.mark.parametrize(("request_", "starts"), [({}, 3), ({"RetryStrategy": {"MaximumRetryAttempts": 1}}, 2)])
def test_a_job_fails_when_its_attempts_are_used_up(request_, starts):
    job = transitions.start_attempt(new_job(**request_), NOW)
    for attempt in range(1, starts + 1):
        assert job.status is TrainingJobStatus.IN_PROGRESS
        job = transitions.lose_attempt(job, attempt, "machine gone", NOW)
    assert state(job) == ("Failed", "Failed", starts)
    assert job.failure_reason == f"InternalServerError: attempt {starts} of {starts} was lost: machine gone"


def test_a_lost_attempt_takes_its_times_with_it():
    assert TRAINING.started_at == NOW
    assert RESTARTING.started_at is None


def test_transitions_tell_the_whole_way_without_gaps():
    assert [str(stay.status) for stay in COMPLETED.transitions] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    ends = [stay.ended_at for stay in COMPLETED.transitions]
    assert ends[:-1] == [stay.started_at for stay in COMPLETED.transitions[1:]]
    assert ends[-1] is not None


def test_an_end_keeps_what_was_reported_with_it():
    ended = transitions.apply_report(
        TRAINING, end(Outcome.FAILED, failure_reason="why", exit_code=3, training_ended_at=NOW + 5), NOW + 7
    )
    assert (ended.failure_reason, ended.exit_code, ended.ended_at, ended.modified_at) == ("why", 3, NOW + 5, NOW + 7)
    assert ended.training_time_s == 5


GANG = transitions.begin_start(STARTED, 1, "Starting training on 2 instances", NOW)
GANG_TRAINING = transitions.apply_report(
    GANG, report("Training", start=1, training_started_at=NOW, details={"node": "one"}), NOW
)
SECOND_START = transitions.begin_start(GANG_TRAINING, 1, "machine 2 was lost", NOW)


def test_each_start_of_an_attempts_instances_is_counted_and_told():
    assert (state(GANG), GANG.start) == (("InProgress", "Starting", 1), 1)
    assert GANG.message == "Starting training on 2 instances"
    assert (state(SECOND_START), SECOND_START.start) == (("InProgress", "Restarting", 1), 2)
    assert SECOND_START.message == "machine 2 was lost"


def test_a_start_forgets_what_the_one_before_did():
    assert (GANG_TRAINING.started_at, GANG_TRAINING.node_id) == (NOW, "one")
    assert (SECOND_START.started_at, SECOND_START.ended_at, SECOND_START.node_id) == (None, None, None)
    again = transitions.apply_report(SECOND_START, report("Downloading", start=2), NOW)
    assert state(again) == ("InProgress", "Downloading", 1)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_a_report_of_an_earlier_start_is_refused(number, outcome):
    with pytest.raises(ReportRefused, match=f"start {number} .* start 2 is the job's"):
        transitions.apply_report(SECOND_START, report("Training", outcome, start=number), NOW)


def test_a_report_of_an_earlier_start_is_refused_after_the_end_too():
    ended = transitions.apply_report(
        SECOND_START, report("Completed", Outcome.COMPLETED, start=2, model_uri="s3://b/m"), NOW
    )
    assert transitions.apply_report(ended, report("Completed", Outcome.COMPLETED, start=2), NOW) is ended
    with pytest.raises(ReportRefused):
        transitions.apply_report(ended, report("Completed", Outcome.COMPLETED, start=1), NOW)


def test_a_gang_may_come_up_on_other_machines():
    moved = transitions.apply_report(GANG_TRAINING, report("Uploading", start=1, details={"node": "two"}), NOW)
    assert (state(moved), moved.node_id) == (("InProgress", "Uploading", 1), "two")


@pytest.mark.parametrize("job", [WAITING, RESTARTING, *ENDED], ids=state)
def test_only_the_jobs_own_attempt_begins_a_start_and_none_does_after_the_end(job):
    with pytest.raises(ReportRefused):
        transitions.begin_start(job, 1 if job is not WAITING else 0, "go", NOW)


def test_a_start_of_a_job_that_is_to_stop_does_not_undo_stopping():
    begun = transitions.begin_start(transitions.request_stop(GANG_TRAINING, NOW), 1, "go", NOW)
    assert (state(begun), begun.start) == (("Stopping", "Stopping", 1), 2)
    ended = transitions.apply_report(begun, report("Stopped", Outcome.STOPPED, start=2), NOW)
    assert state(ended) == ("Stopped", "Stopped", 1)


def test_the_next_attempt_counts_its_starts_anew():
    lost = transitions.lose_attempt(SECOND_START, 1, "supervisor gone", NOW)
    assert (lost.attempt, lost.start) == (2, 0)
    assert transitions.begin_start(lost, 2, "go", NOW).start == 1


VARIANT = ResolvedVariant({"VariantName": "v"}, "model", (ResolvedContainer("image"),))
OLD = Deployment("old", (VARIANT,))
NEW = Deployment("new", (VARIANT,))

CREATING = transitions.create_endpoint("e", "arn:e", "000000000000", OLD, 0.0)
IN_SERVICE = transitions.endpoint_healthy(CREATING, 1, {"v": 2}, NOW)
UPDATING = transitions.update_endpoint(IN_SERVICE, NEW, NOW)
ROLLING_BACK = transitions.endpoint_failed(UPDATING, 2, "no /ping", NOW)
NOT_UP = transitions.endpoint_failed(CREATING, 1, "no /ping", NOW)
NOT_BACK = transitions.endpoint_failed(ROLLING_BACK, 3, "no machine", NOW)
DELETING = transitions.delete_endpoint(IN_SERVICE, NOW)


def test_containers_with_fleets_of_their_own_come_up_before_they_take_the_traffic():
    steps = [{"ContainerHostname": name, "Placement": "Distributed"} for name in "ab"]
    graph = {"Nodes": {"root": {"RouterType": "Sequence", "Steps": steps}}}
    apart = Deployment("apart", (dataclasses.replace(VARIANT, inference_graph=graph),))
    assert transitions.update_endpoint(IN_SERVICE, apart, NOW).stage == "Preparing"


def endpoint_state(endpoint: EndpointRecord) -> tuple[str, int, str, str | None]:
    deployed = endpoint.deployed.config_name if endpoint.deployed else None
    return str(endpoint.status), endpoint.generation, endpoint.desired.config_name, deployed


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (CREATING, ("Creating", 1, "old", None)),
        (IN_SERVICE, ("InService", 1, "old", "old")),
        (UPDATING, ("Updating", 2, "new", "old")),
        (transitions.endpoint_healthy(UPDATING, 2, {"v": 1}, NOW), ("InService", 2, "new", "new")),
        (ROLLING_BACK, ("RollingBack", 3, "old", "old")),
        (transitions.endpoint_healthy(ROLLING_BACK, 3, {"v": 1}, NOW), ("InService", 3, "old", "old")),
        (NOT_UP, ("Failed", 1, "old", None)),
        (transitions.update_endpoint(NOT_UP, NEW, NOW), ("Updating", 2, "new", None)),
        (NOT_BACK, ("UpdateRollbackFailed", 3, "old", "old")),
        (transitions.endpoint_healthy(NOT_BACK, 3, {"v": 1}, NOW), ("InService", 3, "old", "old")),
        (transitions.update_endpoint(NOT_BACK, NEW, NOW), ("Updating", 4, "new", "old")),
        (DELETING, ("Deleting", 1, "old", "old")),
    ],
)
def test_endpoints_move_where_sagemaker_says(endpoint, expected):
    assert endpoint_state(endpoint) == expected


def test_an_update_from_nothing_that_fails_is_failed():
    again = transitions.update_endpoint(NOT_UP, NEW, NOW)
    assert endpoint_state(transitions.endpoint_failed(again, 2, "no", NOW)) == ("Failed", 2, "new", None)


def test_an_endpoint_that_went_back_serves_and_says_why():
    back = transitions.endpoint_healthy(ROLLING_BACK, 3, {"v": 1}, NOW)
    assert (back.status, back.failure_reason) == (EndpointStatus.IN_SERVICE, "no /ping")
    assert transitions.update_endpoint(back, NEW, NOW).failure_reason is None


def test_a_way_back_that_fails_tells_both_reasons():
    assert NOT_BACK.failure_reason == "no /ping Going back failed too: no machine"


@pytest.mark.parametrize("endpoint", [CREATING, UPDATING, ROLLING_BACK, DELETING], ids=lambda e: str(e.status))
def test_an_endpoint_that_is_busy_cannot_be_updated(endpoint):
    with pytest.raises(IllegalMove, match=endpoint.status):
        transitions.update_endpoint(endpoint, NEW, NOW)


@pytest.mark.parametrize("endpoint", [UPDATING, ROLLING_BACK, NOT_BACK, IN_SERVICE], ids=lambda e: str(e.status))
def test_news_of_another_generation_changes_nothing(endpoint):
    for generation in (endpoint.generation - 1, endpoint.generation + 1):
        assert transitions.endpoint_healthy(endpoint, generation, {"v": 9}, NOW) is endpoint
        assert transitions.endpoint_failed(endpoint, generation, "no", NOW) is endpoint


@pytest.mark.parametrize("endpoint", [IN_SERVICE, NOT_UP, NOT_BACK, DELETING], ids=lambda e: str(e.status))
def test_a_failure_where_nothing_is_coming_up_changes_nothing(endpoint):
    assert transitions.endpoint_failed(endpoint, endpoint.generation, "no", NOW) is endpoint


@pytest.mark.parametrize("endpoint", [NOT_UP, DELETING], ids=lambda e: str(e.status))
def test_an_endpoint_given_up_does_not_come_back_by_itself(endpoint):
    assert transitions.endpoint_healthy(endpoint, endpoint.generation, {"v": 1}, NOW) is endpoint


def test_a_health_report_in_service_only_moves_the_count():
    assert transitions.endpoint_healthy(IN_SERVICE, 1, {"v": 5}, NOW + 1) == dataclasses.replace(
        IN_SERVICE, running_counts={"v": 5}
    )


@pytest.mark.parametrize(
    "endpoint", [CREATING, IN_SERVICE, UPDATING, ROLLING_BACK, NOT_UP, NOT_BACK], ids=lambda e: str(e.status)
)
def test_an_endpoint_can_always_be_deleted(endpoint):
    deleting = transitions.delete_endpoint(endpoint, NOW)
    assert deleting.status is EndpointStatus.DELETING
    assert transitions.delete_endpoint(deleting, NOW + 1) is deleting


def test_an_attempt_that_comes_up_on_another_machine_is_lost_and_fenced() -> None:
    begun = transitions.apply_report(STARTED, report("Training", details={"node": "one"}), NOW)
    assert transitions.apply_report(begun, report("Uploading", details={"node": "one"}), NOW).attempt == 1
    moved = transitions.apply_report(begun, report("Starting", details={"node": "two"}), NOW)
    assert state(moved) == ("InProgress", "Restarting", 2)
    with pytest.raises(ReportRefused):
        transitions.apply_report(moved, report("Downloading", details={"node": "two"}), NOW)
