"""Several algorithms through the API: one is picked, or all train in jobs of their own and the best model is kept."""

from __future__ import annotations

import pytest

from raymaker.actors.reports import Outcome
from raymaker.platform.comparing.reconcile_comparisons import follow_comparisons
from raymaker.platform.database import evaluations, training
from raymaker.platform.errors import ResourceInUse, ValidationException
from raymaker.platform.evaluating.evaluations import Trigger
from support.evaluations import CONFIG, play_evaluation

TWO = [
    {"Name": "tables", "EntryPoint": ["tables"], "ContentTypes": ["text/csv"]},
    {"Name": "images", "TrainingImage": "images:2", "ContentTypes": ["image/jpeg"]},
]
CHANNEL = {
    "ChannelName": "train",
    "ContentType": "image/jpeg",
    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data"}},
}


def create(api, name: str = "job", **told):
    algorithm = {"TrainingImage": "both:1", "TrainingInputMode": "File", "Algorithms": TWO, **told}
    return api.create_job(name, AlgorithmSpecification=algorithm, InputDataConfig=[CHANNEL], EvaluationConfig=CONFIG)


def compare(api) -> None:
    create(api, AlgorithmSelection="All", SelectionMetric="accuracy")


def follow(api) -> None:
    database = api.context.database
    jobs = [job for job in training.unfinished_training_jobs(database) if job.name == "job"]
    follow_comparisons(database, jobs, api.now)


def describe(api):
    return api("DescribeTrainingJob", TrainingJobName="job")


def names(api) -> set[str]:
    return {each["TrainingJobName"] for each in api("ListTrainingJobs")["TrainingJobSummaries"]}


def test_the_algorithm_of_the_datas_type_is_the_jobs(api):
    create(api)
    told = describe(api)
    assert told["AlgorithmSpecification"]["TrainingImage"] == "images:2"
    assert told["AlgorithmSpecification"]["SelectedAlgorithm"] == "images"
    assert names(api) == {"job"}
    assert told["AlgorithmTrainingJobs"] == []


def test_all_train_side_by_side_and_the_job_has_the_best_model(api):
    compare(api)
    assert names(api) == {"job", "job-tables", "job-images"}
    for name in ("job-tables", "job-images"):
        api.complete_job(name, f"s3://bucket/{name}/model.tar.gz")
    follow(api)
    told = describe(api)
    assert told["TrainingJobStatus"] == "InProgress"
    assert told["SecondaryStatusTransitions"][-1]["StatusMessage"].endswith(
        "tables is being judged, images is being judged"
    )
    for name, accuracy in (("job-tables", 0.75), ("job-images", 0.5)):
        with api.context.database.reading() as connection:
            (found,) = evaluations.list_evaluations(connection, name)
        assert found.trigger is Trigger.END
        play_evaluation(api.context.database, name, 1, api.now, {"accuracy": accuracy})
    follow(api)
    told = describe(api)
    assert (told["TrainingJobStatus"], told["AlgorithmSpecification"]["SelectedAlgorithm"]) == ("Completed", "tables")
    assert told["ModelArtifacts"]["S3ModelArtifacts"] == "s3://bucket/job-tables/model.tar.gz"
    assert told["AlgorithmSpecification"]["ContainerEntrypoint"] == ["tables"]
    assert [(it["AlgorithmName"], it["TrainingJobStatus"], it["Metrics"]) for it in told["AlgorithmTrainingJobs"]] == [
        ("tables", "Completed", {"accuracy": 0.75}),
        ("images", "Completed", {"accuracy": 0.5}),
    ]
    with api.context.database.reading() as connection:
        assert evaluations.list_evaluations(connection, "job") == [], "its model was judged already"
    model = api("DescribeModel", ModelName=api("Deploy", TrainingJobName="job")["ModelName"])
    assert model["PrimaryContainer"]["ModelDataUrl"] == "training-job://job"


def test_stopping_it_stops_all(api):
    compare(api)
    api.start_job("job-images")
    api.report("job-images", "Training", training_started_at=api.now)
    api("StopTrainingJob", TrainingJobName="job")
    told = describe(api)
    assert told["TrainingJobStatus"] == "Stopping"
    assert [it["TrainingJobStatus"] for it in told["AlgorithmTrainingJobs"]] == ["Stopped", "Stopping"]
    api.report("job-images", "Stopped", Outcome.STOPPED)
    follow(api)
    assert describe(api)["TrainingJobStatus"] == "Stopped"


def test_it_runs_nothing_that_could_be_changed(api):
    compare(api)
    with pytest.raises(ValidationException, match="job runs nothing itself; update .*: job-tables, job-images"):
        api("UpdateTrainingJob", TrainingJobName="job", HyperParameters={"rate": "1"})


def test_a_job_whose_name_is_taken_leaves_none(api):
    api.create_job("job-images")
    with pytest.raises(ResourceInUse, match="job-images"):
        compare(api)
    assert names(api) == {"job-images"}


def test_what_no_algorithm_can_run_is_refused(api):
    told = {"TrainingInputMode": "File", "Algorithms": [{"Name": "none"}], "AlgorithmSelection": "All"}
    with pytest.raises(ValidationException, match="exactly one of TrainingImage"):
        api.create_job("job", AlgorithmSpecification=told)
    told = {"TrainingImage": "a", "TrainingInputMode": "File", "Algorithms": TWO}
    with pytest.raises(ValidationException, match="none takes the content types"):
        api.create_job("job", AlgorithmSpecification=told)
    assert names(api) == set()
