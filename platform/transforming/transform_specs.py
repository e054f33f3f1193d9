"""Transform job records to specs: what was asked for, said in the words of those who run it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.platform.capacity import multiply
from raymaker.platform.catalogue import CatalogueError
from raymaker.platform.transforming.transform_jobs import TransformJobRecord
from raymaker.serving.transform.spec import (
    DEFAULT_MAX_RUNTIME_S,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_S,
    DataProcessing,
    TransformInput,
    TransformOutput,
    TransformSpec,
)


def transform_specs(record: TransformJobRecord, catalogue: Mapping[str, InstanceType]) -> list[TransformSpec]:
    """Say what each machine of the job's current attempt is to do. Raises CatalogueError where its type is gone."""
    count = record.request["TransformResources"]["InstanceCount"]
    return [_spec(record, _instance_type(record, catalogue), index, count) for index in range(count)]


def resources_needed(record: TransformJobRecord, catalogue: Mapping[str, InstanceType]) -> Resources:
    """What must be free before an attempt can begin: all its instances."""
    return multiply(*instances_needed(record, catalogue))


def instances_needed(record: TransformJobRecord, catalogue: Mapping[str, InstanceType]) -> tuple[Resources, int]:
    """What each instance has, and how many there are."""
    return _instance_type(record, catalogue).resources, record.request["TransformResources"]["InstanceCount"]


def max_runtime_s(request: Mapping[str, Any]) -> int:
    """How long a job may transform."""
    return int(request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S))


def _instance_type(record: TransformJobRecord, catalogue: Mapping[str, InstanceType]) -> InstanceType:
    name = record.request["TransformResources"]["InstanceType"]
    if name not in catalogue:
        raise CatalogueError(
            f"the instance type {name} of transform job {record.name} is no longer in the catalogue: put it back"
        )
    return catalogue[name]


def _spec(record: TransformJobRecord, instance_type: InstanceType, index: int, count: int) -> TransformSpec:
    request, model = record.request, record.model
    client, processing = request.get("ModelClientConfig", {}), request.get("DataProcessing", {})
    return TransformSpec(
        job_name=record.name,
        job_arn=record.arn,
        attempt=record.attempt,
        instance_type=instance_type,
        scoring=ScoringSpec(
            image=model.image,
            source=model.source,
            model_uri=model.model_uri,
            additional_models=model.additional_models,
            environment={**model.environment, **request.get("Environment", {})},
            resources=instance_type.resources,
        ),
        input=_input(request["TransformInput"]),
        output=_output(request["TransformOutput"]),
        processing=DataProcessing(
            processing.get("InputFilter", "$"),
            processing.get("OutputFilter", "$"),
            processing.get("JoinSource", "None"),
        ),
        strategy=request.get("BatchStrategy"),
        max_payload_mib=request.get("MaxPayloadInMB"),
        max_concurrency=request.get("MaxConcurrentTransforms") or None,
        timeout_s=client.get("InvocationsTimeoutInSeconds", DEFAULT_TIMEOUT_S),
        max_retries=client.get("InvocationsMaxRetries", DEFAULT_RETRIES),
        max_runtime_s=max_runtime_s(request),
        machine_index=index,
        machine_count=count,
    )


def _input(source: Mapping[str, Any]) -> TransformInput:
    objects = source["DataSource"]["S3DataSource"]
    return TransformInput(
        uri=objects["S3Uri"],
        data_type=objects["S3DataType"],
        content_type=source.get("ContentType"),
        compression=source.get("CompressionType", "None"),
        split_type=source.get("SplitType", "None"),
    )


def _output(output: Mapping[str, Any]) -> TransformOutput:
    return TransformOutput(
        uri=output["S3OutputPath"], accept=output.get("Accept"), assemble_with=output.get("AssembleWith", "None")
    )
