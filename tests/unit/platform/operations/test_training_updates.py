"""UpdateTrainingJob and StopTrainingJob's DeleteModelData, as a client sends them."""

from __future__ import annotations

import pytest

from raymaker.actors.reports import Metric, Outcome, ReportRefused, UpdateReport, UpdateStage
from raymaker.actors.spec import Manner
from raymaker.platform.changing.update_specs import standing_of
from raymaker.platform.database import metrics, updates
from raymaker.platform.errors import ResourceInUse, ValidationException

from .conftest import Api

RATE = {"HyperParameters": {"rate": "0.01"}}
CODE = {"SourceUri": "s3://b/code", "EntryPoint": "train.py"}


@pytest.fixture
def training(api: Api) -> Api:
    """A platform on which the job `job` trains, with a loss of 0.5."""
    api.create_job("job", HyperParameters={"rate": "0.1", "depth": "3"})
    api.start_job("job")
    api.report("job", "Training", training_started_at=api.now)
    metrics.insert_metrics(api.context.database, "job", 1, [Metric("loss", 0.5, api.now - 1)])
    return api


def update(api: Api, **changes):
    return api("UpdateTrainingJob", TrainingJobName="job", **changes)


def report(api: Api, stage: UpdateStage, revision: int = 1, attempt: int = 1, **facts) -> bool:
    said = UpdateReport("job", attempt, revision, stage, **facts)
    return updates.apply_update_report(api.context.database, said, api.now)


def events(api: Api) -> list[str]:
    return [event["Kind"] for event in api("ListEvents", TrainingJobName="job", MaxResults=100)["Events"]]


def test_a_change_is_written_down_and_described_until_it_is_in_force(training):
    woken = training.cluster.wake_count
    assert update(training, **RATE)["Revision"] == 1
    assert training.cluster.wake_count == woken + 1
    seen = training("DescribeTrainingJob", TrainingJobName="job")
    assert (seen["Revision"], seen["HyperParameters"]["rate"]) == (0, "0.1")
    (asked,) = seen["Updates"]
    assert (asked["Status"], asked["Summary"]) == ("Pending", ["hyperparameter rate from 0.1 to 0.01"])
    assert asked["MetricsBefore"] == [{"MetricName": "loss", "Value": 0.5}]
    assert "SettledTime" not in asked
    assert report(training, UpdateStage.APPLIED, heard_by=(0,))
    seen = training("DescribeTrainingJob", TrainingJobName="job")
    assert (seen["Revision"], seen["HyperParameters"]) == (1, {"rate": "0.01", "depth": "3"})
    assert (seen["Updates"][0]["Status"], seen["Updates"][0]["HeardByRanks"]) == ("Applied", [0])
    assert events(training)[-2:] == ["UpdateRequested", "UpdateApplied"]


def test_the_first_numbers_after_a_change_are_told_when_all_that_there_were_before_have_come(training):
    update(training, **RATE)
    report(training, UpdateStage.APPLIED)
    database = training.context.database
    updates.measure(database, updates.current_job(database, "job", 1), training.now)
    assert "UpdateMeasured" not in events(training)
    found = [Metric("loss", 0.25, training.now + 1), Metric("loss", 0.2, training.now + 2)]
    metrics.insert_metrics(database, "job", 1, found)
    updates.measure(database, updates.current_job(database, "job", 1), training.now)
    assert events(training)[-1] == "UpdateMeasured"
    (seen,) = training("DescribeTrainingJob", TrainingJobName="job")["Updates"]
    assert seen["MetricsAfter"] == [{"MetricName": "loss", "Value": 0.25}]


def test_numbers_that_come_no_more_are_not_waited_for(training):
    update(training, **RATE)
    report(training, UpdateStage.APPLIED)
    found = [Metric("accuracy", float("nan"), training.now + 1)]
    metrics.insert_metrics(training.context.database, "job", 1, found)
    updates.measure_last(training.context.database, "job", training.now)
    (seen,) = training("DescribeTrainingJob", TrainingJobName="job")["Updates"]
    assert seen["MetricsAfter"] == [{"MetricName": "accuracy", "Value": "NaN"}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "nothing to change"),
        ({"HyperParameters": {}}, "nothing to change"),
        ({"TrainingImage": "two"}, "IfNotHeard must be Restart, since TrainingImage"),
        ({"TrainingImage": " ", "IfNotHeard": "Restart"}, "TrainingImage is empty"),
        ({"TrainingImage": "two", "AlgorithmSource": CODE}, "exclude each other"),
        ({"AlgorithmSource": CODE}, "IfNotHeard must be Restart, since AlgorithmSource"),
        ({"AlgorithmSource": {**CODE, "EntryPoint": "../train.py"}}, "AlgorithmSource.EntryPoint"),
        ({"ResourceConfig": {"InstanceCount": 2}}, "IfNotHeard must be Restart, since ResourceConfig.InstanceCount"),
        ({"ResourceConfig": {"InstanceCount": 2}, "IfNotHeard": "Restart"}, "without CheckpointConfig"),
        ({**RATE, "HearTimeoutInSeconds": 0}, "HearTimeoutInSeconds 0"),
        ({**RATE, "DeleteModelData": True}, "DeleteModelData"),
        ({**RATE, "IfNotHeard": "Perhaps"}, "ifNotHeard"),
        ({"HyperParameters": {f"p{n}": "1" for n in range(99)}}, "HyperParameters would make 101"),
        ({"RemoteDebugConfig": {"EnableRemoteDebug": True}}, "RemoteDebugConfig.EnableRemoteDebug"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(training, changes, words):
    with pytest.raises(ValidationException, match=words):
        update(training, **changes)
    assert training("DescribeTrainingJob", TrainingJobName="job")["Updates"] == []


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"InstanceType": "ml.none.such"}, "ml.none.such"),
        ({"InstanceCount": 1000}, "can never hold so many"),
        ({"MinInstanceCount": 3}, "not in order"),
    ],
)
def test_machines_that_the_cluster_cannot_have_are_refused(api, resources, words):
    api.create_job("job", CheckpointConfig={"S3Uri": "s3://b/checkpoints"})
    api.start_job("job")
    api.report("job", "Training")
    with pytest.raises(ValidationException, match=words):
        update(api, ResourceConfig=resources, IfNotHeard="Restart")
    assert update(api, ResourceConfig={"InstanceCount": 2}, IfNotHeard="Restart")["Revision"] == 1


def test_two_at_once_are_never_mixed(training):
    update(training, **RATE)
    with pytest.raises(ResourceInUse, match="revision 1 is Pending"):
        update(training, HyperParameters={"depth": "4"})
    report(training, UpdateStage.FAILED, reason="nobody listens")
    assert update(training, HyperParameters={"depth": "4"})["Revision"] == 2


def test_a_job_that_does_not_train_is_not_changed(api):
    with pytest.raises(ValidationException, match="not found"):
        update(api, **RATE)
    api.create_job("job")
    with pytest.raises(ValidationException, match="Only a job that trains"):
        update(api, **RATE)
    api.complete_job("job")
    with pytest.raises(ValidationException, match="Completed"):
        update(api, **RATE)


def test_what_sagemaker_changes_is_kept_and_described(training):
    update(training, ResourceConfig={"KeepAlivePeriodInSeconds": 0}, ProfilerConfig={"DisableProfiler": True})
    seen = training("DescribeTrainingJob", TrainingJobName="job")
    assert seen["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 0
    assert seen["ProfilerConfig"] == {"DisableProfiler": True}
    assert seen["Updates"][0]["Status"] == "Applied"


def test_machines_are_told_what_is_in_force_and_what_is_wanted(training):
    update(training, **RATE, IfNotHeard="Restart", HearTimeoutInSeconds=7, DeleteModelData=True)
    context = training.context
    job = updates.current_job(context.database, "job", 1)
    standing = standing_of(job, training.cluster.instance_types(), context.settings)
    assert (standing.spec.hyperparameters["rate"], standing.spec.revisions.number) == ("0.1", 0)
    wanted = standing.update
    assert wanted is not None
    assert (wanted.spec.hyperparameters["rate"], wanted.number, wanted.spec.revisions.hyperparameters) == ("0.01", 1, 1)
    assert (wanted.manner, wanted.may_restart, wanted.hear_timeout_s, wanted.deletes_model) == (
        Manner.TELL,
        True,
        7.0,
        True,
    )
    report(training, UpdateStage.RESTARTING)
    job = updates.current_job(context.database, "job", 1)
    standing = standing_of(job, training.cluster.instance_types(), context.settings)
    assert (standing.spec.hyperparameters["rate"], standing.spec.revisions.restart) == ("0.01", 1)


def test_an_attempt_that_is_no_longer_the_jobs_is_told_to_stop(training):
    update(training, **RATE)
    with pytest.raises(ReportRefused):
        report(training, UpdateStage.APPLIED, attempt=2)
    with pytest.raises(ReportRefused):
        updates.current_job(training.context.database, "job", 2)
    with pytest.raises(ReportRefused):
        updates.current_job(training.context.database, "other", 1)
    training.report("job", "Completed", Outcome.COMPLETED)
    with pytest.raises(ReportRefused):
        updates.current_job(training.context.database, "job", 1)
    with pytest.raises(ReportRefused):
        report(training, UpdateStage.APPLIED)


def test_a_stop_may_ask_for_no_model_until_it_is_being_stored(training):
    training("StopTrainingJob", TrainingJobName="job", DeleteModelData=True)
    assert updates.current_job(training.context.database, "job", 1).deletes_model
    training.create_job("other")
    training.start_job("other")
    training.report("other", "Uploading")
    with pytest.raises(ValidationException, match="delete the model at its place"):
        training("StopTrainingJob", TrainingJobName="other", DeleteModelData=True)
