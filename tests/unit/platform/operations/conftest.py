"""The API without HTTP: requests through the service model's checks, and answers through its writer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.reports import JobReport, Outcome
from raymaker.actors.spec import InstanceType, Resources
from raymaker.platform import dispatch, wire
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.database import hosting, training
from raymaker.platform.operations.registry import HANDLERS
from raymaker.platform.pools.seen import MachineStatus, SeenContainer, SeenMachine, SeenPool
from raymaker.platform.settings import Settings
from raymaker.platform.shapes import operation_model
from support.frontend import make_context

GIB = 1024**3


class SmallCluster:
    """A cluster of two nodes, the larger of 16 CPUs and 64 GiB, with the built-in catalogue."""

    def __init__(self, settings: Settings) -> None:
        self._types = load_catalogue(settings)
        self._nodes = [Resources(cpus=16, memory_bytes=64 * GIB), Resources(cpus=3, memory_bytes=64 * GIB)]
        self.wake_count = 0
        self.may_grow = False

    def add_type(self, name: str, resources: Resources) -> None:
        self._types[name] = InstanceType(name, resources)

    def add_node(self, resources: Resources) -> None:
        self._nodes.append(resources)

    def instance_types(self) -> dict[str, InstanceType]:
        return self._types

    def nodes(self) -> list[Resources]:
        return self._nodes

    def is_open_ended(self) -> bool:
        return self.may_grow

    def pool(self) -> SeenPool:
        waiting = SeenMachine("machine/a", "node-1", MachineStatus.WAITING, 3, 1_700_000_000.0)
        running = SeenMachine("machine/b", "node-1", MachineStatus.RUNNING, 0, 0.0, "digits", 1)
        container = SeenContainer("node-1", "digits:1", 1_700_000_000.0)
        return SeenPool(
            (waiting, running),
            least=1,
            most=4,
            wanted=2,
            recent_starts=5,
            containers=(container,),
        )

    def wake(self) -> None:
        self.wake_count += 1


class Api:
    """Calls operations as a client would, and lets jobs and endpoints move as machines would."""

    def __init__(self, home: Path) -> None:
        context = make_context(home)
        self.cluster = SmallCluster(context.settings)
        self.now = 1_700_000_000.0
        self.context = dataclasses.replace(context, cluster=self.cluster, now=lambda: self.now)
        self.context.database.migrate()

    def __call__(self, name: str, **request: Any) -> dict[str, Any]:
        operation = operation_model("sagemaker", name)
        parsed = wire.read_request(operation, json.dumps(request).encode())
        answer = wire.write_answer(operation, HANDLERS[name](self.context, parsed))
        return json.loads(answer.body)

    def create_job(self, name: str, **changes: Any) -> dict[str, Any]:
        return self("CreateTrainingJob", **job_request(name, **changes))

    def report(self, name: str, phase: str, outcome: Outcome | None = None, attempt: int = 1, **facts: Any) -> None:
        said = JobReport(name, attempt, phase, f"{phase} it is", self.now, outcome=outcome, **facts)
        training.apply_report(self.context.database, said, self.now)

    def start_job(self, name: str) -> None:
        training.start_attempt(self.context.database, name, self.now)

    def complete_job(self, name: str, model_uri: str | None = "s3://bucket/out/model.tar.gz") -> None:
        self.start_job(name)
        self.report(name, "Training", training_started_at=self.now)
        self.report(name, "Completed", Outcome.COMPLETED, model_uri=model_uri, training_ended_at=self.now + 7)

    def trained(self, name: str) -> str:
        """Create a job that is Completed at once, and give its name back."""
        self.create_job(name)
        self.complete_job(name, f"s3://bucket/out/{name}/output/model.tar.gz")
        return name

    def endpoint_comes_up(self, name: str, generation: int = 1) -> None:
        hosting.endpoint_healthy(self.context.database, name, generation, {"v": 1}, self.now)

    def endpoint_fails(self, name: str, reason: str, generation: int = 1) -> None:
        hosting.endpoint_failed(self.context.database, name, generation, reason, self.now)


def job_request(name: str, **changes: Any) -> dict[str, Any]:
    """The smallest CreateTrainingJob, with `changes` over it; None takes a member away."""
    request = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": "algo:1", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::123456789012:role/anyone",
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        **changes,
    }
    return {key: value for key, value in request.items() if value is not None}


@pytest.fixture
def api(home: Path) -> Iterator[Api]:
    """The API of an empty platform."""
    dispatch.load_operations()
    api = Api(home)
    yield api
    api.context.database.dispose()
