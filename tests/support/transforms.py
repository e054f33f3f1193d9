"""Transform jobs as tests ask for them: through stock boto3, on a model of their own, over folders of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from support.faults import eventually
from support.jobs import ENDED, ROLE, fresh_name


@dataclass
class Transforms:
    """What a test does with transform jobs. `folder` holds each job's input and output under its name."""

    sagemaker: Any
    engine: docker.DockerClient
    image: str
    folder: Path
    made: list[str] = field(default_factory=list)

    def model(self, environment: Mapping[str, str] | None = None, **container: Any) -> str:
        """Make a model, and return its name."""
        name = fresh_name("model")
        chosen = {"Image": self.image, "Environment": environment or {}, **container}
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=chosen, ExecutionRoleArn=ROLE)
        return name

    def put(self, name: str, objects: Mapping[str, bytes]) -> None:
        """Write a job's input."""
        for key, content in objects.items():
            path = self.folder / name / "in" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def create(self, name: str, model: str, *, split_type: str = "Line", **changes: Any) -> None:
        """Create a job over its own input."""
        objects = {"S3DataType": "S3Prefix", "S3Uri": (self.folder / name / "in").as_uri()}
        request = {
            "TransformJobName": name,
            "ModelName": model,
            "TransformInput": {
                "DataSource": {"S3DataSource": objects},
                "ContentType": "text/csv",
                "SplitType": split_type,
            },
            "TransformOutput": {"S3OutputPath": (self.folder / name / "out").as_uri(), "AssembleWith": "Line"},
            "TransformResources": {"InstanceType": "local", "InstanceCount": 1},
            **changes,
        }
        self.sagemaker.create_transform_job(**request)
        self.made.append(name)

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_transform_job(TransformJobName=name)
        return found

    def until_through(self, name: str, count: int) -> None:
        """Wait until so many objects are through."""
        eventually(
            lambda: self.describe(name)["TransformProgress"]["ObjectsDone"] >= count, f"{count} objects of {name}"
        )

    def finish(self, name: str, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait for the job's end and return its description."""
        return eventually(
            lambda: found if (found := self.describe(name))["TransformJobStatus"] in ENDED else None,
            f"{name} ends",
            timeout_s,
        )

    def outputs(self, name: str) -> dict[str, bytes]:
        """What a job has stored, by name."""
        root = self.folder / name / "out"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def containers(self, name: str) -> list[Any]:
        """By their names: those that had waited have no labels of the job's."""
        filters = {"name": f"-transform-{name}-"}
        return list(self.engine.containers.list(all=True, ignore_removed=True, filters=filters))
