"""Evaluations through the API: what is accepted and refused, what is told of them, and the best checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.reports import Outcome
from raymaker.platform.errors import ValidationException
from support.evaluations import CONFIG, play_evaluation, store_records

CHANNEL = {
    "ChannelName": "validation",
    "ContentType": "text/csv",
    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/validation"}},
}
BINARY, REGRESSION = "BinaryClassification", "Regression"


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A checkpoint location with three checkpoints, of which `epoch-3` is the newest."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for number in (1, 2, 3):
        path = folder / f"epoch-{number}"
        path.write_bytes(b"x")
        os.utime(path, (1000 + number, 1000 + number))
    return folder


@pytest.fixture
def evaluated(api, checkpoints, tmp_path):
    """The API with a job that trains, is evaluated, and stores its output there."""
    api.create_job(
        "job",
        CheckpointConfig={"S3Uri": checkpoints.as_uri()},
        OutputDataConfig={"S3OutputPath": (tmp_path / "out").as_uri()},
        EvaluationConfig=CONFIG,
    )
    api.start_job("job")
    return api


def config(*left_out: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**CONFIG, **changes}.items() if key not in left_out}


def alarm(**fields: Any) -> dict[str, Any]:
    return config(Alarms=[{"MetricName": "accuracy", **fields}])


def test_an_evaluated_job_is_described_as_it_was_asked_for(api):
    api.create_job("job", EvaluationConfig=CONFIG)
    assert api("DescribeTrainingJob", TrainingJobName="job")["EvaluationConfig"] == CONFIG


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (config("DataSource"), "exactly one of ChannelName .* and DataSource"),
        (config(ChannelName="validation"), "exactly one of ChannelName .* and DataSource"),
        (
            config("DataSource", ChannelName="test"),
            "ChannelName test is no channel of InputDataConfig, which has vali",
        ),
        (config(DataSource={}), "DataSource needs an S3DataSource"),
        (config(ContentType="image/jpeg"), "ContentType image/jpeg cannot be read: use CSV"),
        (config("LabelAttribute"), "exactly one of LabelAttribute .* and LabelS3Uri"),
        (config(LabelS3Uri="s3://b/labels"), "exactly one of LabelAttribute .* and LabelS3Uri"),
        (config(TagAttribute="0"), "TagAttribute 0 is LabelAttribute too"),
        (config(RequestContentType="text/html"), "RequestContentType text/html cannot be written"),
        (config(InferenceAttribute="a["), "InferenceAttribute is no JMESPath expression"),
        (config(ProbabilityThreshold=0.3), "ProbabilityThreshold does not go with ProblemType MulticlassClass"),
        (config(ProblemType=REGRESSION, Classes=["a", "b"]), "Classes does not go with ProblemType Regression"),
        (config(Classes=["a", "a"]), "Classes names a class twice"),
        (config(Classes=["a"]), "Classes names one class"),
        (config(ProblemType=BINARY, Classes=["a", "b", "c"]), "Classes names 3 classes, and a binary"),
        (config(ProblemType=BINARY, Classes=["a", "b"], PositiveClass="c"), "PositiveClass c is none of Classes"),
        (config(Metrics=["rmse"]), r"Metrics\[0\] rmse is no metric of MulticlassClassification: accuracy"),
        (config(ScoringImage="a", ScoringSource={"SourceUri": "s3://b/c", "EntryPoint": "e"}), "only one of ScoringIm"),
        (config(MetricSource={"SourceUri": "s3://b/c", "EntryPoint": "../e"}), "MetricSource.EntryPoint leads out"),
        (config(InstanceType="none"), "EvaluationConfig.InstanceType: there is no instance type none"),
        (alarm(), r"Alarms\[0\] needs exactly one of LessThan, GreaterThan, Patience"),
        (alarm(LessThan=1, NotificationTopic="arn:aws:sns:x"), r"NotificationTopic arn:aws:sns:x is no webhook"),
        (alarm(LessThan=1, Patience=1), r"Alarms\[0\] needs exactly one of"),
        (alarm(LessThan=1, MinimumChange=1), "MinimumChange goes with Patience"),
        (alarm(MetricName="rmse", LessThan=1), r"Alarms\[0\].MetricName rmse is none of the metrics that are told"),
        (
            {**alarm(LessThan=1, Action="StopTrainingJob"), "Schedule": "OnRequest"},
            "StopTrainingJob needs evaluations of checkpoints",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name_and_leaves_nothing(api, asked, said):
    with pytest.raises(ValidationException, match=f"EvaluationConfig.*{said}|{said}"):
        api.create_job("job", InputDataConfig=[CHANNEL], EvaluationConfig=asked)
    assert api("ListTrainingJobs")["TrainingJobSummaries"] == []


@pytest.mark.parametrize(
    "asked",
    [
        config("DataSource", "ContentType", ChannelName="validation"),
        config("LabelAttribute", LabelS3Uri="s3://b/labels", TagAttribute="-1", Metrics=["accuracy", "latency_p99"]),
        config(ProblemType=BINARY, Classes=["a", "b"], PositiveClass="a", ProbabilityThreshold=0.1),
        config(Metrics=["mine"], MetricSource={"SourceUri": "s3://b/c", "EntryPoint": "judge.py"}),
        config(
            Metrics=["mine"],
            MetricSource={"SourceUri": "s3://b/c", "EntryPoint": "judge.py"},
            Alarms=[{"MetricName": "mine", "GreaterThan": 3, "Action": "StopTrainingJob"}],
        ),
        config(InferenceAttribute="-1", ProbabilityAttribute="scores[0].p", IntervalInSeconds=60),
    ],
)
def test_what_can_be_evaluated_is_accepted(api, asked):
    api.create_job("job", InputDataConfig=[CHANNEL], EvaluationConfig=asked)


def test_an_evaluation_is_asked_for_followed_and_listed(evaluated):
    assert evaluated("StartEvaluation", TrainingJobName="job") == {"EvaluationNumber": 1}
    second = evaluated("StartEvaluation", TrainingJobName="job", CheckpointName="epoch-1")
    assert second == {"EvaluationNumber": 2}
    assert evaluated.cluster.wake_count >= 2
    evaluated.now += 5
    play_evaluation(evaluated.context.database, "job", 1, evaluated.now, {"accuracy": 0.75})
    play_evaluation(evaluated.context.database, "job", 2, evaluated.now, "the scoring container hung")
    first, second = evaluated("ListEvaluations", TrainingJobName="job")["Evaluations"]
    assert (first["EvaluationStatus"], first["CheckpointName"], first["Trigger"]) == ("Completed", "epoch-3", "Request")
    assert (first["Metrics"], first["RecordCount"]) == ({"accuracy": 0.75}, 10)
    assert first["Distributions"] == {"Outputs": {"Counts": [4, 6], "Classes": ["a", "b"]}}
    assert first["RecordsS3Uri"].endswith("/out/job/evaluations/1/records.parquet")
    assert (second["EvaluationStatus"], second["FailureReason"]) == ("Failed", "the scoring container hung")
    assert evaluated("ListEvaluations", TrainingJobName="job", StatusEquals="Failed")["Evaluations"] == [second]
    page = evaluated("ListEvaluations", TrainingJobName="job", MaxResults=1)
    rest = evaluated("ListEvaluations", TrainingJobName="job", NextToken=page["NextToken"])
    assert [page["Evaluations"], rest["Evaluations"]] == [[first], [second]]
    assert "NextToken" not in rest
    told = evaluated("ListEvents", TrainingJobName="job")["Events"]
    assert [event["Kind"] for event in told if event["Kind"].startswith("Evaluation")] == [
        "EvaluationStarted",
        "EvaluationCompleted",
        "EvaluationStarted",
        "EvaluationFailed",
    ]
    final = evaluated("DescribeTrainingJob", TrainingJobName="job")["FinalMetricDataList"]
    assert [(each["MetricName"], each["Value"]) for each in final] == [("evaluation:accuracy", 0.75)]


def test_the_model_of_a_job_that_has_ended_is_evaluated_with_another_configuration(api):
    api.create_job("job")
    api.complete_job("job")
    with pytest.raises(ValidationException, match="EvaluationConfig: training job job was given none"):
        api("StartEvaluation", TrainingJobName="job")
    assert api("StartEvaluation", TrainingJobName="job", EvaluationConfig=CONFIG) == {"EvaluationNumber": 1}
    (found,) = api("ListEvaluations", TrainingJobName="job")["Evaluations"]
    assert "CheckpointName" not in found


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"CheckpointName": "epoch-9"}, "no whole checkpoint epoch-9: there are epoch-3, epoch-2, epoch-1"),
        ({"EvaluationConfig": config("LabelAttribute")}, "exactly one of LabelAttribute"),
        ({"TrainingJobName": "nobody"}, "no training job nobody"),
    ],
)
def test_what_cannot_be_started_is_refused(evaluated, request_, said):
    with pytest.raises(ValidationException, match=said):
        evaluated("StartEvaluation", **{"TrainingJobName": "job", **request_})
    assert evaluated("ListEvaluations", TrainingJobName="job")["Evaluations"] == []


def test_a_failed_job_has_nothing_to_evaluate(api):
    api.create_job("job", EvaluationConfig=CONFIG)
    api.start_job("job")
    api("StopTrainingJob", TrainingJobName="job")
    api.report("job", "Stopped", Outcome.STOPPED)
    with pytest.raises(ValidationException, match="nothing to evaluate, training job job is Stopped and stored no mo"):
        api("StartEvaluation", TrainingJobName="job")


def test_an_evaluation_is_stopped_until_it_has_ended(evaluated):
    evaluated("StartEvaluation", TrainingJobName="job")
    evaluated("StopEvaluation", TrainingJobName="job", EvaluationNumber=1)
    (found,) = evaluated("ListEvaluations", TrainingJobName="job")["Evaluations"]
    assert found["EvaluationStatus"] == "Stopped"
    with pytest.raises(ValidationException, match="EvaluationNumber: .* cannot be stopped: it is Stopped"):
        evaluated("StopEvaluation", TrainingJobName="job", EvaluationNumber=1)
    with pytest.raises(ValidationException, match="job has no evaluation 2"):
        evaluated("StopEvaluation", TrainingJobName="job", EvaluationNumber=2)


def test_the_best_checkpoint_by_a_metric_is_a_model(evaluated):
    for number, accuracy, loss in ((1, 0.7, 0.5), (2, 0.9, 0.4), (3, 0.8, 0.3)):
        evaluated("StartEvaluation", TrainingJobName="job", CheckpointName=f"epoch-{number}")
        metrics = {"accuracy": accuracy, "log_loss": loss}
        play_evaluation(evaluated.context.database, "job", number, evaluated.now, metrics)
    listed = evaluated("ListCheckpoints", TrainingJobName="job")["Checkpoints"]
    assert [(it["CheckpointName"], it["Metrics"]["accuracy"]) for it in listed] == [
        ("epoch-3", 0.8),
        ("epoch-2", 0.9),
        ("epoch-1", 0.7),
    ]
    for asked, meant in (("best:accuracy", "epoch-2"), ("best:log_loss", "epoch-3"), ("latest", "epoch-3")):
        made = evaluated("Deploy", TrainingJobName="job", Checkpoint=asked)
        model = evaluated("DescribeModel", ModelName=made["ModelName"])["PrimaryContainer"]["ModelDataUrl"]
        assert model == f"training-job://job/checkpoints/{meant}"
    with pytest.raises(ValidationException, match="no best checkpoint by auc: .* they tell accuracy, log_loss"):
        evaluated("Deploy", TrainingJobName="job", Checkpoint="best:auc")


def test_a_best_checkpoint_that_is_gone_is_not_meant(evaluated, checkpoints):
    for number, (name, accuracy) in enumerate((("epoch-1", 0.7), ("epoch-2", 0.9))):
        evaluated("StartEvaluation", TrainingJobName="job", CheckpointName=name)
        play_evaluation(evaluated.context.database, "job", number + 1, evaluated.now, {"accuracy": accuracy})
    (checkpoints / "epoch-2").unlink()
    made = evaluated("Deploy", TrainingJobName="job", Checkpoint="best:accuracy")
    told = evaluated("DescribeModel", ModelName=made["ModelName"])["PrimaryContainer"]["ModelDataUrl"]
    assert told.endswith("/epoch-1")


def test_records_are_told_from_where_they_are_stored(evaluated, tmp_path):
    with pytest.raises(ValidationException, match="has no evaluation that has completed"):
        evaluated("GetEvaluationRecords", TrainingJobName="job")
    evaluated("StartEvaluation", TrainingJobName="job")
    with pytest.raises(ValidationException, match="evaluation 1 of job is Pending, so it has no records"):
        evaluated("GetEvaluationRecords", TrainingJobName="job", EvaluationNumber=1)
    play_evaluation(evaluated.context.database, "job", 1, evaluated.now, {"accuracy": 0.5})
    with pytest.raises(ValidationException, match="the records of evaluation 1 cannot be read"):
        evaluated("GetEvaluationRecords", TrainingJobName="job")
    place = tmp_path / "out" / "job" / "evaluations" / "1" / "records.parquet"
    store_records(place, [("1,2", "a", "a", 0.9), ("3,4", "b", "a", 0.8)])
    found = evaluated("GetEvaluationRecords", TrainingJobName="job")
    assert found["EvaluationNumber"] == 1
    assert found["Records"][0] == {
        "RecordNumber": 1,
        "Source": "record 1",
        "Tag": "tag-1",
        "Input": "3,4",
        "Output": "a",
        "Label": "b",
        "Difference": 1.0,
        "Confidence": 0.8,
        "IsRight": False,
    }
    best = evaluated("GetEvaluationRecords", TrainingJobName="job", Order="Best", MaxResults=1)["Records"]
    assert [record["RecordNumber"] for record in best] == [0]
    wrong = evaluated("GetEvaluationRecords", TrainingJobName="job", OnlyWrong=True)["Records"]
    assert [record["RecordNumber"] for record in wrong] == [1]


@pytest.mark.parametrize("token", ["x", "W10=", "WyJhIl0="])
def test_a_token_that_is_not_ours_is_refused(evaluated, token):
    with pytest.raises(ValidationException, match="NextToken"):
        evaluated("ListEvaluations", TrainingJobName="job", NextToken=token)
