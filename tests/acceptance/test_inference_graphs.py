"""Models of several containers on a whole platform through boto3: a pipeline, a graph, its drawing and its trace."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import boto3
import docker
import pytest
from botocore.exceptions import ClientError

from raymaker.platform.shapes import MODEL_PATH
from support.graph_cases import node, step, to_node
from support.hosting import ask
from support.jobs import ROLE, fresh_name
from support.platform import Platform

TRACE = "x-raymaker-graph-trace"


@pytest.fixture
def sagemaker(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client that knows raymaker's own fields."""
    monkeypatch.setenv("AWS_DATA_PATH", str(MODEL_PATH))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with contextlib.closing(platform.client("sagemaker")) as client:
        yield client


@pytest.fixture
def runtime(platform: Platform) -> Iterator[Any]:
    """A client of the runtime that asks for traces."""

    def ask_for_trace(params: dict[str, Any], **_: Any) -> None:
        params["headers"][TRACE] = "1"

    with contextlib.closing(platform.client("sagemaker-runtime")) as client:
        client.meta.events.register("before-call.sagemaker-runtime.InvokeEndpoint", ask_for_trace)
        yield client


def create_model(sagemaker: Any, image: str, *hostnames: str, **how: Any) -> str:
    """A model whose containers answer with their names and what they were given."""
    containers = [{"ContainerHostname": name, "Image": image, "Environment": {"SAY": name}} for name in hostnames]
    name = fresh_name("graph")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, Containers=containers, **how)
    return name


@contextlib.contextmanager
def endpoint(sagemaker: Any, *models: str) -> Iterator[str]:
    """An endpoint of a variant for each model, called like it, deleted after the block."""
    name = fresh_name("graph")
    variants = [
        {"VariantName": model, "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "local"}
        for model in models
    ]
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    try:
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
        yield name
    finally:
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})


def test_a_pipeline_and_a_graph_are_variants_of_an_endpoint_with_drawing_and_trace(
    sagemaker: Any, runtime: Any, steps_image: str, engine: docker.DockerClient
) -> None:
    scaling = {"MinInstanceCount": 2, "MaxInstanceCount": 3}
    apart = step("right", StepName="right", Dependency="Soft", Placement="Distributed", InstanceScaling=scaling)
    alone = fresh_name("alone")
    container = {"Image": steps_image, "Environment": {"SAY": "left"}}
    sagemaker.create_model(ModelName=alone, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    serial = create_model(sagemaker, steps_image, "one", "two")
    both = node("Ensemble", step(ModelName=alone, StepName="left"), apart, step(ModelName=serial, StepName="pair"))
    nodes = {"root": node("Sequence", step("first", StepName="scale"), to_node("both", Data="$response")), "both": both}
    graph = create_model(sagemaker, steps_image, "first", "right", InferenceGraph={"Nodes": nodes})
    told = sagemaker.describe_model(ModelName=graph)
    assert told["InferenceGraph"] == {"Nodes": nodes}
    assert "Ensemble" in told["InferenceGraphDrawing"]["Mermaid"]
    assert told["InferenceGraphDrawing"]["Svg"].startswith("<svg")

    with endpoint(sagemaker, serial, graph) as name:

        def invoke(variant: str, body: bytes) -> tuple[bytes, list[str]]:
            answer = runtime.invoke_endpoint(EndpointName=name, TargetVariant=variant, Body=body, Accept="text/plain")
            trace = json.loads(answer["ResponseMetadata"]["HTTPHeaders"][TRACE])
            return answer["Body"].read(), [f"{found['step']} {found['state']}" for found in trace["steps"]]

        assert invoke(serial, b"x") == (b"two=none got=one=none got=x", ["root/one Answered", "root/two Answered"])
        answer, steps = invoke(graph, b"x")
        scaled = "first=none got=x"
        found = Counter(ask(made).partition(b"=")[0] for made in engine.containers.list(filters={"name": name}))
        assert (found[b"first"], found[b"right"]) == (1, 2)
        assert json.loads(answer) == {
            "left": f"left=none got={scaled}",
            "right": f"right=none got={scaled}",
            "pair": f"two=none got=one=none got={scaled}",
        }
        assert steps == [
            "root/scale Answered",
            "root/1 Answered",
            "root/1/left Answered",
            "root/1/right Answered",
            "root/1/pair Answered",
            "root/1/pair/one Answered",
            "root/1/pair/two Answered",
        ]
        with pytest.raises(ClientError) as failed:
            invoke(serial, b"fail")
        assert failed.value.response["OriginalStatusCode"] == 500
        assert "Step root/one (container one)" in failed.value.response["Error"]["Message"]
