"""Every move of a change of a training job: it is made once or fails, whatever the job meets with meanwhile."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from raymaker.actors.reports import JobReport, Outcome, UpdateReport, UpdateStage
from raymaker.actors.spec import Manner, Revisions
from raymaker.platform import transitions
from raymaker.platform.changing import job_updates
from raymaker.platform.changing.changes import changed_request, manner_of, summarise
from raymaker.platform.changing.job_updates import ChangeUnderWay
from raymaker.platform.changing.update_record import UpdateStatus
from raymaker.platform.phases import IllegalMove
from raymaker.platform.records import TrainingJobRecord

NOW = 1000.0
REQUEST: dict[str, Any] = {
    "AlgorithmSpecification": {"TrainingImage": "one", "TrainingInputMode": "File"},
    "HyperParameters": {"rate": "0.1", "depth": "3"},
    "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1},
}
SOURCE = {"SourceUri": "s3://b/code", "EntryPoint": "train.py", "BaseImage": "base"}
SOURCED = {**REQUEST, "AlgorithmSpecification": {"AlgorithmSource": SOURCE}}
RATE = {"HyperParameters": {"rate": "0.01"}}
IMAGE = {"TrainingImage": "two", "IfNotHeard": "Restart"}
BIGGER = {"ResourceConfig": {"InstanceCount": 2}, "IfNotHeard": "Restart"}


def said(phase: str, outcome: Outcome | None = None, *, attempt: int = 1, revision: int = 0) -> JobReport:
    return JobReport("job", attempt, phase, "said", NOW, outcome=outcome, revision=revision)


def job(request: dict[str, Any] | None = None) -> TrainingJobRecord:
    waiting = transitions.create_training_job("job", "arn:job", "000000000000", request or REQUEST, 0.0)
    return transitions.apply_report(transitions.start_attempt(waiting, NOW), said("Training"), NOW)


def ask(record: TrainingJobRecord, changes: dict[str, Any], **metrics: float) -> TrainingJobRecord:
    return job_updates.request_update(record, changes, "somebody", metrics, NOW)


def tell(
    record: TrainingJobRecord, stage: UpdateStage, revision: int = 1, **facts: Any
) -> tuple[TrainingJobRecord, bool]:
    report = UpdateReport("job", record.attempt, revision, stage, **facts)
    return job_updates.apply_update_report(record, report, NOW + 1)


TRAINING = job()
ASKED = ask(TRAINING, RATE, loss=0.5)
RESTARTING, _ = tell(ASKED, UpdateStage.RESTARTING)
MOVING, _ = tell(ask(TRAINING, BIGGER), UpdateStage.RESTARTING)
MOVED, _ = tell(MOVING, UpdateStage.MOVING)


def kinds(before: TrainingJobRecord, after: TrainingJobRecord) -> list[str]:
    return [event.kind for event in job_updates.news(before, after)]


@pytest.mark.parametrize(
    ("request_", "changes", "manner"),
    [
        (REQUEST, RATE, Manner.TELL),
        (REQUEST, {**RATE, "IfNotHeard": "Restart", "HearTimeoutInSeconds": 0}, Manner.REPLACE),
        (REQUEST, IMAGE, Manner.REPLACE),
        (REQUEST, {"AlgorithmSource": SOURCE}, Manner.REPLACE),
        (SOURCED, {"AlgorithmSource": {"SourceUri": "s3://b/new", "EntryPoint": "other.py"}}, Manner.TELL),
        (SOURCED, {"AlgorithmSource": {**SOURCE, "BaseImage": "other"}}, Manner.REPLACE),
        (SOURCED, {"TrainingImage": "two"}, Manner.REPLACE),
        (REQUEST, {**RATE, **BIGGER}, Manner.MOVE),
        (REQUEST, {"ResourceConfig": {"InstanceType": "ml.m5.large"}}, Manner.MOVE),
        (REQUEST, {"ResourceConfig": {"InstanceType": "local"}}, None),
        (REQUEST, {"ResourceConfig": {"KeepAlivePeriodInSeconds": 60}}, None),
        (REQUEST, {"ProfilerConfig": {"DisableProfiler": True}}, None),
    ],
)
def test_what_changes_says_how_it_reaches_the_job(request_, changes, manner):
    assert manner_of(request_, changes) is manner


def test_what_is_not_named_stays_as_it_is():
    changed = changed_request(SOURCED, {**RATE, "AlgorithmSource": {"SourceUri": "s3://b/new", "EntryPoint": "x.py"}})
    assert changed["HyperParameters"] == {"rate": "0.01", "depth": "3"}
    assert changed["AlgorithmSpecification"]["AlgorithmSource"] == {
        "SourceUri": "s3://b/new",
        "EntryPoint": "x.py",
        "BaseImage": "base",
    }
    assert changed_request(SOURCED, IMAGE)["AlgorithmSpecification"] == {"TrainingImage": "two"}
    assert changed_request(REQUEST, BIGGER)["ResourceConfig"] == {"InstanceType": "local", "InstanceCount": 2}
    assert summarise(REQUEST, {**RATE, **BIGGER}) == (
        "hyperparameter rate from 0.1 to 0.01",
        "InstanceCount from 1 to 2",
    )


def test_a_change_is_in_force_once_it_was_heard_of_and_not_before():
    assert (ASKED.request, ASKED.revision) == (REQUEST, 0)
    applied, may = tell(ASKED, UpdateStage.APPLIED, heard_by=(0, 2))
    assert may
    assert applied.request["HyperParameters"]["rate"] == "0.01"
    assert (applied.revision, applied.open_update, applied.secondary) == (1, None, "Training")
    assert applied.updates[0].heard_by == (0, 2)
    assert kinds(TRAINING, ASKED) == ["UpdateRequested"]
    (event,) = job_updates.news(ASKED, applied)
    assert event.kind == "UpdateApplied"
    assert "rate from 0.1 to 0.01" in event.message
    assert "rank 0, 2" in event.message


def test_who_asked_and_the_numbers_before_are_told_at_once():
    (event,) = job_updates.news(TRAINING, ASKED)
    assert "somebody" in event.message
    assert "loss 0.5" in event.message


def test_the_numbers_after_are_told_with_those_before():
    applied, _ = tell(ASKED, UpdateStage.APPLIED)
    assert [it.revision for it in job_updates.awaiting_metrics(applied)] == [1]
    measured = job_updates.measure(applied, 1, {"loss": 0.25, "new": 1.0}, NOW)
    (event,) = job_updates.news(applied, measured)
    assert event.kind == "UpdateMeasured"
    assert "loss was 0.5 before, 0.25 next; new was 1 next" in event.message
    assert job_updates.awaiting_metrics(measured) == []


def test_a_change_that_fails_leaves_the_job_as_it_was():
    failed, may = tell(ASKED, UpdateStage.FAILED, reason="nobody listens")
    assert may
    assert (failed.request, failed.revision, failed.secondary) == (REQUEST, 0, "Training")
    assert failed.updates[0].failure_reason == "nobody listens"
    assert kinds(ASKED, failed) == ["UpdateFailed"]
    again = ask(failed, RATE)
    assert again.updates[-1].revision == 2, "a number is used once"


def test_replaced_containers_put_a_change_in_force_when_they_train():
    assert (RESTARTING.secondary, RESTARTING.revision, RESTARTING.restart_revision) == ("Restarting", 1, 1)
    assert RESTARTING.request["HyperParameters"]["rate"] == "0.01"
    old = transitions.apply_report(RESTARTING, said("Training", revision=0), NOW)
    assert old.open_update is not None, "that was said by the containers before"
    trains = transitions.apply_report(RESTARTING, said("Training", revision=1), NOW)
    assert (trains.secondary, trains.updates[0].status) == ("Training", UpdateStatus.APPLIED)
    assert (trains.attempt, trains.start) == (1, 0)


def test_a_job_that_is_lost_while_its_containers_are_replaced_goes_on_with_the_change():
    lost = transitions.lose_attempt(RESTARTING, 1, "machine gone", NOW)
    assert (lost.attempt, lost.open_update.status) == (2, UpdateStatus.RESTARTING)
    trains = transitions.apply_report(lost, said("Training", attempt=2, revision=1), NOW)
    assert trains.updates[0].status is UpdateStatus.APPLIED


def test_a_job_that_is_lost_before_it_was_told_is_told_in_its_next_attempt():
    lost = transitions.lose_attempt(ASKED, 1, "machine gone", NOW)
    trains = transitions.apply_report(lost, said("Training", attempt=2), NOW)
    assert (trains.request, trains.open_update.status) == (REQUEST, UpdateStatus.PENDING)
    applied, _ = tell(trains, UpdateStage.APPLIED)
    assert applied.revision == 1


@pytest.mark.parametrize("stage", [UpdateStage.APPLIED, UpdateStage.FAILED, UpdateStage.RESTARTING])
def test_a_repeat_changes_nothing_and_is_told_the_same(stage):
    once, may = tell(ASKED, stage)
    assert tell(once, stage) == (once, may)


def test_a_change_of_machines_waits_for_them_as_the_next_attempt():
    assert (MOVING.request, MOVING.secondary) == (REQUEST, "Training"), "nothing is in force while they are given up"
    assert (MOVED.attempt, MOVED.secondary, MOVED.is_waiting) == (2, "Pending", True)
    assert MOVED.request["ResourceConfig"]["InstanceCount"] == 2
    assert MOVED.open_update.status is UpdateStatus.RESTARTING
    pending = transitions.mark_pending(MOVED, "no room", NOW)
    started = transitions.start_attempt(pending, NOW)
    assert (started.attempt, started.secondary) == (2, "Starting")
    trains = transitions.apply_report(started, said("Training", attempt=2, revision=1), NOW)
    assert trains.updates[0].status is UpdateStatus.APPLIED


def test_machines_that_are_lost_while_they_are_given_up_are_given_up():
    assert transitions.lose_attempt(MOVING, 1, "gone", NOW).secondary == "Pending"


def test_attempts_that_a_change_began_are_not_among_those_that_were_lost():
    record = dataclasses.replace(transitions.start_attempt(MOVED, NOW), attempt=3)
    assert transitions.lose_attempt(record, 3, "gone", NOW).attempt == 4
    assert transitions.lose_attempt(dataclasses.replace(record, attempt=4), 4, "gone", NOW).status == "Failed"


def test_a_job_that_waits_for_other_machines_stops_at_once():
    stopped = transitions.request_stop(MOVED, NOW)
    assert (stopped.status, stopped.updates[0].status) == ("Stopped", UpdateStatus.FAILED)


@pytest.mark.parametrize("record", [ASKED, RESTARTING, MOVING], ids=["asked", "restarting", "moving"])
def test_a_stop_gives_up_what_is_under_way(record):
    stopping = transitions.request_stop(record, NOW)
    assert stopping.updates[0].status is UpdateStatus.FAILED
    moved, may = tell(stopping, UpdateStage.MOVING)
    assert (moved, may) == (stopping, False)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_end_of_the_job_gives_up_what_is_under_way(outcome):
    ended = transitions.apply_report(ASKED, said(outcome.value, outcome), NOW)
    assert ended.updates[0].status is UpdateStatus.FAILED
    assert "ended before" in str(ended.updates[0].failure_reason)


@pytest.mark.parametrize(
    "record",
    [
        transitions.create_training_job("job", "arn:job", "000000000000", REQUEST, 0.0),
        transitions.apply_report(TRAINING, said("Uploading"), NOW),
        transitions.request_stop(TRAINING, NOW),
        transitions.apply_report(TRAINING, said("Completed", Outcome.COMPLETED), NOW),
        transitions.lose_attempt(TRAINING, 1, "gone", NOW),
    ],
    ids=["waiting", "uploading", "stopping", "completed", "restarting"],
)
def test_a_job_that_does_not_train_is_not_changed(record):
    with pytest.raises(IllegalMove, match=record.secondary):
        ask(record, RATE)


def test_there_is_one_change_at_a_time():
    for changes in ({"HyperParameters": {"depth": "4"}}, {"ProfilerConfig": {"DisableProfiler": True}}):
        with pytest.raises(ChangeUnderWay, match="revision 1 is Pending"):
            ask(ASKED, changes)


def test_what_concerns_no_container_is_in_force_at_once():
    changed = ask(TRAINING, {"ResourceConfig": {"KeepAlivePeriodInSeconds": 60}})
    assert changed.request["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 60
    assert changed.updates[0].status is UpdateStatus.APPLIED


def test_revisions_say_which_change_concerns_what():
    record = TRAINING
    for number, changes in enumerate((RATE, IMAGE, {"HyperParameters": {"depth": "4"}}), 1):
        record, _ = tell(ask(record, changes), UpdateStage.RESTARTING, number)
        record = transitions.apply_report(record, said("Training", revision=number), NOW)
    assert job_updates.revisions_of(record) == Revisions(number=3, hyperparameters=3, code=0, restart=3)
    failed, _ = tell(ask(record, RATE), UpdateStage.FAILED, 4)
    assert job_updates.revisions_of(failed).hyperparameters == 3


def test_a_record_keeps_the_last_hundred_changes():
    record = TRAINING
    for number in range(1, 131):
        record, _ = tell(ask(record, {"HyperParameters": {"rate": str(number)}}), UpdateStage.APPLIED, number)
    assert [record.updates[0].revision, record.updates[-1].revision, len(record.updates)] == [31, 130, 100]


@pytest.mark.parametrize("record", [TRAINING, transitions.request_stop(TRAINING, NOW)], ids=["training", "stopping"])
def test_a_stop_may_ask_for_no_model(record):
    stopping = transitions.request_stop(record, NOW, deletes_model=True)
    assert (stopping.status, stopping.deletes_model) == ("Stopping", True)
    assert transitions.request_stop(stopping, NOW).deletes_model


def test_once_the_model_is_being_stored_it_is_too_late_to_leave_it_out():
    uploading = transitions.apply_report(TRAINING, said("Uploading"), NOW)
    with pytest.raises(IllegalMove, match="being stored"):
        transitions.request_stop(uploading, NOW, deletes_model=True)
    assert transitions.request_stop(uploading, NOW).status == "Stopping"
