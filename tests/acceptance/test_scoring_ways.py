"""The other ways to score on a whole platform: streamed, captured, answered later, one of many models."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.faults import eventually, kill_process
from support.jobs import ROLE, fresh_name
from support.platform import Platform


@pytest.fixture
def clients(platform: Platform) -> Iterator[tuple[Any, Any]]:
    """boto3's clients of the API and of the runtime."""
    with (
        contextlib.closing(platform.client("sagemaker")) as sagemaker,
        contextlib.closing(platform.client("sagemaker-runtime")) as runtime,
    ):
        yield sagemaker, runtime


@contextlib.contextmanager
def endpoint(sagemaker: Any, container: dict[str, Any], **config: Any) -> Iterator[str]:
    """An endpoint in service, deleted after the block."""
    name = fresh_name("ways")
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "main", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "local"}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **config)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    try:
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
        yield name
    finally:
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})


def written(uri: str) -> bytes | None:
    path = Path(uri.removeprefix("file://"))
    return path.read_bytes() if path.exists() else None


def test_answers_are_streamed_captured_and_given_later_also_while_the_control_actor_is_away(
    platform: Platform, clients: tuple[Any, Any], steps_image: str, tmp_path: Path
) -> None:
    sagemaker, runtime = clients
    capture = {"InitialSamplingPercentage": 100, "DestinationS3Uri": (tmp_path / "kept").as_uri()}
    capture["CaptureOptions"] = [{"CaptureMode": "InputAndOutput"}]
    later = {"OutputConfig": {"S3OutputPath": (tmp_path / "out").as_uri()}}
    asked = {"DataCaptureConfig": capture, "AsyncInferenceConfig": later}
    with endpoint(sagemaker, {"Image": steps_image}, **asked) as name:
        described = sagemaker.describe_endpoint(EndpointName=name)
        assert described["DataCaptureConfig"]["CaptureStatus"] == "Started"
        assert described["AsyncInferenceConfig"] == later
        streamed = eventually(
            lambda: platform.cli("invoke", name, "--data", "1,2", "--stream").stdout, "the endpoint answers", 30
        )
        assert streamed == "model=none got=1,2"

        kill_process(platform.home, "ray::Control")
        answers = [runtime.invoke_endpoint_async(EndpointName=name, Body=b"%d" % number) for number in range(3)]
        for number, answer in enumerate(answers):
            uri = answer["OutputLocation"]
            eventually(lambda: written(uri), "what was accepted is answered", 60)  # noqa: B023 - called here
            assert written(uri) == b"model=none got=%d" % number

        def captured() -> list[dict[str, Any]]:
            return [r for r in json.loads(platform.cli("captured", name, "--json").stdout) if "1,2" in str(r)]

        (record,) = eventually(captured, "the streamed answer is captured", 60)
        assert record["Input"] == {"Data": "1,2", "ContentType": "text/csv"}
        assert record["Output"]["Data"] == "model=none got=1,2"


def test_one_of_many_models_is_asked_for_by_name(
    platform: Platform, clients: tuple[Any, Any], steps_image: str, tmp_path: Path
) -> None:
    sagemaker, _ = clients
    (tmp_path / "models" / "first").mkdir(parents=True)
    (tmp_path / "models" / "first" / "weights").write_text("1")
    container = {"Image": steps_image, "Mode": "MultiModel", "ModelDataUrl": (tmp_path / "models").as_uri()}
    with endpoint(sagemaker, container) as name:
        answer = eventually(
            lambda: platform.cli("invoke", name, "--data", "x", "--target-model", "first").stdout, "it answers", 30
        )
        assert answer == "model=none got=x"
        refused = platform.cli("invoke", name, "--data", "x", "--target-model", "second")
        assert refused.returncode == 1
        assert "TargetModel second is not there" in refused.stderr
