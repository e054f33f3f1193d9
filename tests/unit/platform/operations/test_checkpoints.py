"""Checkpoints listed through the API, and as models of endpoints: which one is meant is settled when it is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raymaker.platform.database import hosting
from raymaker.platform.errors import ValidationException

ROLE = "arn:aws:iam::123456789012:role/anyone"


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """A checkpoint location with three checkpoints, as somebody may have put them there; `epoch-10` is the newest."""
    folder = tmp_path / "checkpoints"
    (folder / "epoch-2").mkdir(parents=True)
    (folder / "epoch-2" / "weights.bin").write_bytes(b"22")
    (folder / "epoch-2" / "optimizer.bin").write_bytes(b"222")
    for number, name in enumerate(("epoch-1", "epoch-2/weights.bin", "epoch-2/optimizer.bin", "epoch-10")):
        path = folder / name
        if number in {0, 3}:
            path.write_bytes(b"x" * (number + 1))
        os.utime(path, (1000 + number, 1000 + number))
    return folder


@pytest.fixture
def training(api, location):
    """The API with a job that trains and stores checkpoints there."""
    api.create_job("job", CheckpointConfig={"S3Uri": location.as_uri(), "LocalPath": "/opt/ml/checkpoints"})
    api.start_job("job")
    return api


def serve(api, checkpoint: str, **container: Any) -> Any:
    """Deploy a model that names a checkpoint, and return what its container runs."""
    api(
        "CreateModel",
        ModelName="m",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"ModelDataUrl": f"training-job://job/checkpoints/{checkpoint}", **container},
    )
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "local", "InitialInstanceCount": 1}
    api("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant])
    api("CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    return container_of(api, "e")


def container_of(api, endpoint: str) -> Any:
    with api.context.database.reading() as connection:
        record = hosting.find_endpoint(connection, endpoint)
    (variant,) = record.desired.variants
    (container,) = variant.containers
    return container


def test_whole_checkpoints_are_listed_newest_first(training):
    found = training("ListCheckpoints", TrainingJobName="job")["Checkpoints"]
    told = [(it["CheckpointName"], it["SizeInBytes"], it["FileCount"], it["LastModifiedTime"]) for it in found]
    assert told == [("epoch-10", 4, 1, 1003.0), ("epoch-2", 5, 2, 1002.0), ("epoch-1", 1, 1, 1000.0)]


def test_a_job_without_checkpoints_says_so(api):
    api.create_job("job")
    with pytest.raises(ValidationException, match="job job stores no checkpoints: it has no CheckpointConfig"):
        api("ListCheckpoints", TrainingJobName="job")
    with pytest.raises(ValidationException, match="stores no checkpoints"):
        serve(api, "latest")
    with pytest.raises(ValidationException, match="no training job nobody"):
        api("ListCheckpoints", TrainingJobName="nobody")


@pytest.mark.parametrize(("asked", "meant"), [("epoch-2", "epoch-2"), ("latest", "epoch-10")])
def test_a_checkpoint_of_a_job_that_trains_is_a_model_with_the_jobs_image(training, location, asked, meant):
    container = serve(training, asked)
    assert (container.model_uri, container.checkpoint, container.image) == (location.as_uri(), meant, "algo:1")


def test_latest_is_what_was_latest_when_the_endpoint_was_made_or_updated(training, location):
    assert serve(training, "latest").checkpoint == "epoch-10"
    (location / "epoch-11").write_bytes(b"new")
    assert container_of(training, "e").checkpoint == "epoch-10"
    training.endpoint_comes_up("e")
    training("UpdateEndpoint", EndpointName="e", EndpointConfigName="c")
    assert container_of(training, "e").checkpoint == "epoch-11"


def test_one_that_is_called_latest_is_meant_by_that_name(training, location):
    (location / "latest").write_bytes(b"1")
    os.utime(location / "latest", (1, 1))
    assert serve(training, "latest").checkpoint == "latest"


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        ("epoch-3", "no whole checkpoint epoch-3: there are epoch-10, epoch-2, epoch-1"),
        ("a/b", "names nothing: use training-job://job, or training-job://job/checkpoints/"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(training, checkpoint, said):
    with pytest.raises(ValidationException, match=said):
        serve(training, checkpoint)
    assert training("ListEndpoints")["Endpoints"] == []


def test_other_ends_of_a_jobs_uri_name_nothing(training):
    with pytest.raises(ValidationException, match="names nothing"):
        training(
            "CreateModel",
            ModelName="m",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"ModelDataUrl": "training-job://job/epoch-1"},
        )


def test_a_checkpoint_is_deployed_in_one_call_while_the_job_trains(training):
    with pytest.raises(ValidationException, match="nothing to deploy"):
        training("Deploy", TrainingJobName="job")
    made = training("Deploy", TrainingJobName="job", Checkpoint="latest", EndpointName="live")
    assert container_of(training, "live").checkpoint == "epoch-10"
    model = training("DescribeModel", ModelName=made["ModelName"])["PrimaryContainer"]
    assert model["ModelDataUrl"] == "training-job://job/checkpoints/epoch-10"


def test_a_checkpoint_goes_neither_beside_a_model_nor_into_a_transform_job(training):
    source = {"S3Uri": "training-job://job/checkpoints/epoch-1", "S3DataType": "S3Prefix", "CompressionType": "None"}
    more = [{"ChannelName": "a", "S3DataSource": source}]
    with pytest.raises(ValidationException, match="a checkpoint is a model of its own"):
        serve(training, "epoch-1", AdditionalModelDataSources=more)
    serve(training, "epoch-1")
    with pytest.raises(ValidationException, match="model m is a checkpoint"):
        training(
            "CreateTransformJob",
            TransformJobName="t",
            ModelName="m",
            TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in"}}},
            TransformOutput={"S3OutputPath": "s3://b/out"},
            TransformResources={"InstanceType": "local", "InstanceCount": 1},
        )
