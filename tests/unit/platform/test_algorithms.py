"""Requests with several algorithms: picked by content, or trained side by side, and how that ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from raymaker.actors.reports import Outcome
from raymaker.platform import transitions
from raymaker.platform.comparing import comparison
from raymaker.platform.comparing.algorithms import check_algorithms, choose_by_content, expand, is_comparison
from raymaker.platform.comparing.comparison import Candidate
from raymaker.platform.errors import ValidationException
from raymaker.platform.records import TrainingJobRecord, TrainingJobStatus
from support.evaluations import CONFIG

NOW = 1_000.0
TABLES = {
    "Name": "tables",
    "EntryPoint": ["python3", "tables.py"],
    "ContentTypes": ["text/csv", "application/x-parquet"],
}
IMAGES = {"Name": "images", "EntryPoint": ["python3", "images.py"], "ContentTypes": ["image/jpeg"]}


def request(
    *algorithms: Mapping[str, Any], content_type: str = "text/csv; charset=utf-8", **told: Any
) -> dict[str, Any]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/data"}}
    return {
        "TrainingJobName": "job",
        "AlgorithmSpecification": {
            "TrainingImage": "both:1",
            "TrainingInputMode": "File",
            "Algorithms": [*algorithms],
            **told,
        },
        "HyperParameters": {"epochs": "1", "rate": "2"},
        "InputDataConfig": [{"ChannelName": "train", "ContentType": content_type, "DataSource": source}],
        "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
        "CheckpointConfig": {"S3Uri": "s3://b/checkpoints/"},
        "EvaluationConfig": CONFIG,
    }


def test_the_algorithm_that_takes_the_datas_type_is_picked() -> None:
    told = choose_by_content(request(IMAGES, TABLES))["AlgorithmSpecification"]
    assert (told["ContainerEntrypoint"], told["SelectedAlgorithm"]) == (["python3", "tables.py"], "tables")
    assert told["TrainingImage"] == "both:1"
    told = choose_by_content(request(IMAGES, TABLES, content_type="image/jpeg"))["AlgorithmSpecification"]
    assert told["SelectedAlgorithm"] == "images"


def test_data_that_none_takes_is_refused_with_what_each_does() -> None:
    with pytest.raises(ValidationException, match=r"\(text/html\): images takes image/jpeg; plain takes none"):
        choose_by_content(request(IMAGES, {"Name": "plain"}, content_type="text/html"))


def test_all_become_jobs_of_their_own() -> None:
    other = {"Name": "other", "TrainingImage": "other:2", "HyperParameters": {"rate": "9"}}
    asked = request(TABLES, other, AlgorithmSelection="All", SelectionMetric="accuracy")
    assert is_comparison(asked)
    jobs = expand(asked)
    assert [job["TrainingJobName"] for job in jobs.values()] == ["job-tables", "job-other"]
    assert jobs["tables"]["AlgorithmSpecification"] == {
        "TrainingImage": "both:1",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "tables.py"],
    }
    assert jobs["other"]["AlgorithmSpecification"]["TrainingImage"] == "other:2"
    assert jobs["other"]["HyperParameters"] == {"epochs": "1", "rate": "9"}
    assert jobs["other"]["CheckpointConfig"]["S3Uri"] == "s3://b/checkpoints/other"
    assert not is_comparison(jobs["tables"])
    with pytest.raises(ValidationException, match="TrainingJobName: .*-tables, .* is longer than 63 characters"):
        expand({**asked, "TrainingJobName": "j" * 60})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(AlgorithmSelection="All"), "AlgorithmSelection goes with Algorithms"),
        (request(TABLES, TABLES), "the name tables comes twice"),
        (request(TABLES, SelectedAlgorithm="tables"), "SelectedAlgorithm is told, not asked for"),
        (request(TABLES, SelectionMetric="accuracy"), "SelectionMetric goes with AlgorithmSelection"),
        (
            request(TABLES, AlgorithmSelection="All", SelectionMetric="rmse"),
            "rmse is none of the metrics that are",
        ),
        (
            {**request(TABLES, AlgorithmSelection="All", SelectionMetric="accuracy"), "EvaluationConfig": None},
            "needs an EvaluationConfig with the Schedule EachCheckpoint",
        ),
        (
            request(
                {"Name": "x", "TrainingImage": "i", "AlgorithmSource": {"SourceUri": "s3://b/c", "EntryPoint": "e"}}
            ),
            r"Algorithms\[0\]: give only one of TrainingImage and AlgorithmSource",
        ),
    ],
)
def test_what_cannot_stand_beside_each_other_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationException, match=message):
        check_algorithms(asked)


def compared(metric: str | None = "accuracy") -> TrainingJobRecord:
    told = {"AlgorithmSelection": "All", **({"SelectionMetric": metric} if metric else {})}
    asked = request(TABLES, {"Name": "other", "TrainingImage": "other:2"}, **told)
    return transitions.create_training_job("job", "arn", "0" * 12, asked, NOW)


def candidate(name: str, outcome: Outcome | None = None, *, is_judged: bool = True, **metrics: float) -> Candidate:
    asked = expand(request(TABLES, {"Name": "other"}, AlgorithmSelection="All"))[name]
    record = transitions.create_training_job(f"job-{name}", "arn", "0" * 12, asked, NOW)
    if outcome is not None:
        uri = f"s3://b/{name}" if outcome is not Outcome.FAILED else None
        reason = None if uri else "AlgorithmError: no luck"
        record = transitions.end(
            dataclasses.replace(record, model_uri=uri, failure_reason=reason, started_at=NOW), outcome, "ended", NOW + 9
        )
    return Candidate(record, metrics, is_judged)


def test_a_comparison_goes_on_until_all_have_ended_and_are_judged() -> None:
    done = candidate("tables", Outcome.COMPLETED, accuracy=0.5)
    job = comparison.follow(compared(), {"tables": done, "other": candidate("other")}, NOW)
    assert job.status is TrainingJobStatus.IN_PROGRESS
    assert job.message == "2 algorithms train side by side: tables is Completed, other is Starting"
    judging = candidate("other", Outcome.COMPLETED, is_judged=False)
    job = comparison.follow(job, {"tables": done, "other": judging}, NOW)
    assert job.message.endswith("tables is Completed, other is being judged")
    judged = candidate("other", Outcome.COMPLETED, accuracy=0.75)
    ended = comparison.follow(job, {"tables": done, "other": judged}, NOW + 10)
    assert (ended.status, ended.model_uri) == (TrainingJobStatus.COMPLETED, "s3://b/other")
    assert ended.message == "The model is that of other, the best by accuracy: tables 0.5, other 0.75"
    assert ended.request["AlgorithmSpecification"]["TrainingImage"] == "other:2"
    assert ended.request["CheckpointConfig"]["S3Uri"] == "s3://b/checkpoints/other"
    assert (ended.started_at, ended.ended_at) == (NOW, NOW + 9)
    assert comparison.follow(ended, {"tables": done, "other": judged}, NOW + 20) is ended


@pytest.mark.parametrize(
    ("metric", "tables", "other", "best"),
    [
        ("log_loss", {"log_loss": 0.2}, {"log_loss": 0.3}, "tables"),
        ("log_loss", {"log_loss": 0.4}, {"log_loss": 0.3}, "other"),
        ("accuracy", {"accuracy": 0.5}, {"accuracy": 0.5}, "tables"),
        ("accuracy", {}, {"accuracy": 0.1}, "other"),
        (None, {}, {}, "tables"),
    ],
)
def test_the_best_is_the_best_by_its_metric(
    metric: str | None, tables: dict[str, float], other: dict[str, float], best: str
) -> None:
    found = {
        "tables": candidate("tables", Outcome.COMPLETED, **tables),
        "other": candidate("other", Outcome.COMPLETED, **other),
    }
    ended = comparison.follow(compared(metric), found, NOW)
    assert ended.request["AlgorithmSpecification"]["SelectedAlgorithm"] == best


def test_one_that_fails_leaves_the_others_and_all_that_fail_fail_the_job() -> None:
    failed = candidate("tables", Outcome.FAILED)
    ended = comparison.follow(compared(), {"tables": failed, "other": candidate("other", Outcome.COMPLETED)}, NOW)
    assert (ended.status, ended.model_uri) == (TrainingJobStatus.COMPLETED, "s3://b/other")
    ended = comparison.follow(compared(), {"tables": failed, "other": Candidate(None)}, NOW)
    assert ended.status is TrainingJobStatus.FAILED
    assert str(ended.failure_reason).startswith(
        "AlgorithmError: no algorithm left a model: tables: AlgorithmError: no lu"
    )
    assert "other: it was deleted" in str(ended.failure_reason)


def test_a_stopped_comparison_ends_with_its_jobs_and_keeps_the_best_of_them() -> None:
    asked = comparison.request_stop(compared(), NOW)
    assert comparison.request_stop(asked, NOW) is asked
    running = {"tables": candidate("tables", Outcome.STOPPED, accuracy=0.5), "other": candidate("other")}
    assert comparison.follow(asked, running, NOW) is asked
    ended = comparison.follow(asked, {**running, "other": candidate("other", Outcome.FAILED)}, NOW)
    assert (ended.status, ended.model_uri) == (TrainingJobStatus.STOPPED, "s3://b/tables")
    nothing = {"tables": candidate("tables", Outcome.FAILED), "other": candidate("other", Outcome.FAILED)}
    assert comparison.follow(asked, nothing, NOW).status is TrainingJobStatus.STOPPED
