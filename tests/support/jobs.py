"""Training jobs and endpoints as tests ask for them: through stock boto3, on the steps image, with short names."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import docker
import pytest

from support.faults import eventually
from support.platform import Platform
from support.s3 import ObjectStore

ENDED = frozenset({"Completed", "Failed", "Stopped"})
ROLE = "arn:aws:iam::000000000000:role/any"
_numbers = itertools.count(1)


def fresh_name(prefix: str) -> str:
    """A name that no other test of this session uses."""
    return f"{prefix}-{uuid.uuid4().hex[:4]}-{next(_numbers)}"


@dataclass
class Jobs:
    """What a test does with training jobs. `image` runs where a test names no other."""

    sagemaker: Any
    engine: docker.DockerClient
    image: str
    output: str
    made: list[str] = field(default_factory=list)

    def create(self, name: str | None = None, *, image: str | None = None, **changes: Any) -> str:
        """Create a job and return its name. `hyperparameters` is short for HyperParameters, values of any type."""
        name = name or fresh_name("job")
        hyperparameters = {key: str(value) for key, value in changes.pop("hyperparameters", {}).items()}
        request = {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {
                "TrainingImage": image or self.image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
            },
            "HyperParameters": hyperparameters,
            "OutputDataConfig": {"S3OutputPath": self.output},
            "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            **changes,
        }
        self.sagemaker.create_training_job(**request)
        self.made.append(name)
        return name

    def describe(self, name: str) -> dict[str, Any]:
        """DescribeTrainingJob's answer."""
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return found

    def phase(self, name: str) -> str:
        """The job's secondary status."""
        return str(self.describe(name)["SecondaryStatus"])

    def until(self, name: str, phase: str) -> dict[str, Any]:
        """Wait until the job is in this secondary status."""
        return eventually(
            lambda: found if (found := self.describe(name))["SecondaryStatus"] == phase else None,
            f"{name} becomes {phase}",
        )

    def finish(self, name: str, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait for the job's end and return its description."""
        return eventually(
            lambda: found if (found := self.describe(name))["TrainingJobStatus"] in ENDED else None,
            f"{name} ends",
            timeout_s,
        )

    def containers(self, name: str) -> list[Any]:
        """The job's containers, running or not."""
        return job_containers(self.engine, name)

    def start_count(self, name: str, since: float, until: float) -> int:
        """How many containers became the job's between two moments, in epoch seconds.

        Those that the engine started under such a name, and those that got one later, since they had waited.
        """
        seen = self.engine.events(
            since=int(since),
            until=int(until) + 1,
            decode=True,
            filters={"type": "container", "event": ["start", "rename"]},
        )
        return sum(_name_of(name) in event["Actor"]["Attributes"]["name"] for event in seen)


def job_containers(engine: docker.DockerClient, name: str) -> list[Any]:
    """The containers of a job, running or not. By their names: those that had waited have no labels of the job's."""
    return list(engine.containers.list(all=True, ignore_removed=True, filters={"name": _name_of(name)}))


def _name_of(job: str) -> str:
    """What the names of a job's containers have in them."""
    return f"-training-{job}-"


@pytest.fixture
def jobs(platform: Platform, engine: docker.DockerClient, steps_image: str, s3: ObjectStore) -> Iterator[Jobs]:
    """Jobs on the session's platform, with output in a bucket of their own."""
    with jobs_on(platform, engine, steps_image, f"s3://{s3.bucket()}/models") as made:
        yield made


@contextlib.contextmanager
def jobs_on(platform: Platform, engine: docker.DockerClient, image: str, output: str) -> Iterator[Jobs]:
    """Jobs on a platform, none of which outlives the block."""
    client = platform.client("sagemaker")
    made = Jobs(client, engine, image, output)
    yield made
    for name in made.made:
        if made.describe(name)["TrainingJobStatus"] not in ENDED:
            client.stop_training_job(TrainingJobName=name)
            made.finish(name)
    client.close()
