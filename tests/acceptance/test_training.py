"""Training jobs on a whole platform: real containers, S3 over the wire, every way to end."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import docker
import pytest
from botocore.exceptions import ClientError

from support.faults import eventually
from support.jobs import Jobs, fresh_name
from support.platform import Platform
from support.s3 import ObjectStore


def read_archive(s3: ObjectStore, uri: str) -> dict[str, bytes]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client = s3.client()
    content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    client.close()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {
            member.name.removeprefix("./"): file.read()
            for member in archive.getmembers()
            if (file := archive.extractfile(member)) is not None
        }


def log_lines(platform: Platform, job: str) -> list[str]:
    logs = platform.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")["logStreams"]
    lines = [
        event["message"]
        for stream in streams
        for event in logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)[
            "events"
        ]
    ]
    logs.close()
    return lines


def test_a_job_reads_s3_and_leaves_its_model_output_logs_and_metrics(
    platform: Platform, jobs: Jobs, s3: ObjectStore
) -> None:
    bucket = s3.bucket()
    client = s3.client()
    client.put_object(Bucket=bucket, Key="data/one/first.txt", Body=b"first line of data\n")
    client.put_object(Bucket=bucket, Key="data/one/second.txt", Body=b"second line of data\n")
    client.close()
    channel = {
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/data/one"}},
    }
    name = jobs.create(hyperparameters={"steps": 3}, InputDataConfig=[channel])
    ended = jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    assert ended["ModelArtifacts"]["S3ModelArtifacts"] == f"{jobs.output}/{name}/output/model.tar.gz"
    assert read_archive(s3, ended["ModelArtifacts"]["S3ModelArtifacts"]) == {"steps": b"3\n"}
    assert read_archive(s3, f"{jobs.output}/{name}/output/output.tar.gz") == {"extra": b"extra\n"}
    said = log_lines(platform, name)
    assert said[:2] == ["first line of data", "second line of data"]
    assert [line for line in said if line.startswith("step=")] == [f"step={n} loss={100 - n}.5" for n in (1, 2, 3)]
    assert [(m["MetricName"], m["Value"]) for m in ended["FinalMetricDataList"]] == [("loss", 97.5)]
    phases = [transition["Status"] for transition in ended["SecondaryStatusTransitions"]]
    assert phases == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    eventually(lambda: not jobs.containers(name), "the ended job's container is removed")


def test_a_failing_algorithm_says_why_in_its_own_words(jobs: Jobs) -> None:
    name = jobs.create(hyperparameters={"steps": 1, "failure": "the data has no labels", "exit_code": 3})
    ended = jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Failed"
    assert ended["FailureReason"] == "AlgorithmError: the data has no labels, exit code: 3"


def test_a_failing_algorithm_that_says_nothing_fails_with_its_last_log_lines(jobs: Jobs) -> None:
    ended = jobs.finish(jobs.create(hyperparameters={"steps": 2, "exit_code": 4}))
    assert ended["FailureReason"].startswith("AlgorithmError: exit code 4")
    assert "step=2 loss=98.5" in ended["FailureReason"]


def test_a_stopped_job_gets_sigterm_and_keeps_its_model(jobs: Jobs, s3: ObjectStore) -> None:
    name = jobs.create(hyperparameters={"steps": 10_000})
    jobs.until(name, "Training")
    eventually(lambda: jobs.containers(name), "its container runs")
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    ended = jobs.finish(name)
    assert (ended["TrainingJobStatus"], ended["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "stopped" in read_archive(s3, ended["ModelArtifacts"]["S3ModelArtifacts"])


def test_a_job_over_its_time_limit_is_ended_even_when_it_is_deaf_to_sigterm(jobs: Jobs) -> None:
    name = jobs.create(hyperparameters={"steps": 10_000, "deaf": 1}, StoppingCondition={"MaxRuntimeInSeconds": 2})
    ended = jobs.finish(name)
    assert (ended["TrainingJobStatus"], ended["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "no-such-image:anywhere"}, "no-such-image:anywhere"),
        ({"image": "raymaker-base:bookworm"}, "train"),
        (
            {
                "InputDataConfig": [
                    {
                        "ChannelName": "train",
                        "DataSource": {
                            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://no-such-bucket-here/data"}
                        },
                    }
                ]
            },
            "s3://no-such-bucket-here/data",
        ),
        ({"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket-here/out"}}, "s3://no-such-bucket-here/out"),
    ],
    ids=["missing image", "image without train", "missing data", "output that cannot be written"],
)
def test_what_cannot_work_fails_with_the_name_of_what_is_wrong(jobs: Jobs, change: dict[str, Any], reason: str) -> None:
    name = jobs.create(**change)
    ended = jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Failed"
    assert reason in ended["FailureReason"], ended["FailureReason"]
    eventually(lambda: not jobs.containers(name), "nothing half-made stays")


def test_jobs_wait_for_room_say_so_and_all_run(jobs: Jobs) -> None:
    names = [jobs.create(hyperparameters={"steps": 20}) for _ in range(10)]
    waiting = eventually(
        lambda: [name for name in names if jobs.phase(name) == "Pending"], "some of ten jobs wait for one of eight CPUs"
    )
    message = jobs.describe(waiting[0])["SecondaryStatusTransitions"][-1]["StatusMessage"]
    assert "Waiting for an instance of local" in message or jobs.phase(waiting[0]) != "Pending"
    assert {jobs.finish(name, 240)["TrainingJobStatus"] for name in names} == {"Completed"}


def test_an_image_comes_from_a_registry_by_tag_and_by_digest(
    jobs: Jobs, engine: docker.DockerClient, steps_image: str, registry: str
) -> None:
    reference = f"{registry}/tests/steps"
    engine.images.get(steps_image).tag(reference, "v1")
    pushed = [json.loads(line) for line in engine.images.push(reference, "v1").splitlines()]
    digest = next(line["aux"]["Digest"] for line in pushed if "aux" in line)
    engine.images.remove(f"{reference}:v1")
    for image in (f"{reference}:v1", f"{reference}@{digest}"):
        ended = jobs.finish(jobs.create(image=image, hyperparameters={"steps": 1}))
        assert ended["TrainingJobStatus"] == "Completed", ended.get("FailureReason")
    for tag in engine.images.get(f"{reference}@{digest}").tags:
        if tag.startswith(registry):
            engine.images.remove(tag)


def test_names_are_taken_once_and_what_is_not_there_is_told(jobs: Jobs) -> None:
    name = jobs.create(hyperparameters={"steps": 1})
    with pytest.raises(ClientError, match="ResourceInUse"):
        jobs.create(name)
    jobs.finish(name)
    with pytest.raises(ClientError, match="ValidationException"):
        jobs.sagemaker.stop_training_job(TrainingJobName=name)
    with pytest.raises(ClientError, match="ValidationException"):
        jobs.sagemaker.describe_training_job(TrainingJobName=fresh_name("nowhere"))
    with pytest.raises(ClientError, match="ml.no-such.type"):
        jobs.create(ResourceConfig={"InstanceType": "ml.no-such.type", "InstanceCount": 1, "VolumeSizeInGB": 1})
    with pytest.raises(ClientError, match="ml.p4d.24xlarge"):
        jobs.create(ResourceConfig={"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1})
