"""Records to specs: what the platform was asked for, said in the words of those who run it. Pure.

Also the one place where a model is resolved: which archive, and which image or source serves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.actors.spec import (
    ChannelSpec,
    InstanceType,
    MetricDefinition,
    Network,
    ScoringSpec,
    SourceSpec,
    TrainingSpec,
)
from raymaker.platform.catalogue import CatalogueError
from raymaker.platform.errors import ValidationException
from raymaker.platform.records import Deployment, EndpointRecord, ModelRecord, TrainingJobRecord
from raymaker.platform.settings import Settings
from raymaker.serving.spec import EndpointSpec

DEFAULT_MAX_RUNTIME_S = 86_400
JOB_SCHEME = "training-job://"

Catalogue = Mapping[str, InstanceType]


def training_spec(record: TrainingJobRecord, catalogue: Catalogue, settings: Settings) -> TrainingSpec:
    """Say what the job's current attempt is to run. Raises CatalogueError where its instance type is gone."""
    request = record.request
    algorithm, output = request["AlgorithmSpecification"], request["OutputDataConfig"]
    checkpoints = request.get("CheckpointConfig", {})
    return TrainingSpec(
        job_name=record.name,
        job_arn=record.arn,
        region=settings.region,
        attempt=record.attempt,
        instance_type=_find_type(catalogue, request["ResourceConfig"]["InstanceType"], f"training job {record.name}"),
        output_uri=output["S3OutputPath"],
        image=algorithm.get("TrainingImage"),
        source=source_of(request),
        entrypoint=_optional_tuple(algorithm.get("ContainerEntrypoint")),
        arguments=_optional_tuple(algorithm.get("ContainerArguments")),
        hyperparameters=request.get("HyperParameters", {}),
        channels=tuple(_channel_spec(channel, algorithm) for channel in request.get("InputDataConfig", [])),
        environment=request.get("Environment", {}),
        output_compression=output.get("CompressionType", "GZIP"),
        checkpoint_uri=checkpoints.get("S3Uri"),
        checkpoint_local_path=checkpoints.get("LocalPath") or "/opt/ml/checkpoints",
        max_runtime_s=max_runtime_s(request),
        network=Network.NONE if is_isolated(request, settings) else Network.OPEN,
        metric_definitions=tuple(
            MetricDefinition(definition["Name"], definition["Regex"])
            for definition in algorithm.get("MetricDefinitions", [])
        ),
    )


def endpoint_spec(record: EndpointRecord, catalogue: Catalogue, settings: Settings) -> EndpointSpec:
    """Say what the endpoint's current generation is to run. Raises CatalogueError where its instance type is gone."""
    desired, variant = record.desired, record.desired.variant
    instance_type = _find_type(catalogue, variant["InstanceType"], f"endpoint {record.name}")
    return EndpointSpec(
        endpoint_name=record.name,
        config_name=desired.config_name,
        generation=record.generation,
        variant_name=variant["VariantName"],
        replica_count=variant.get("InitialInstanceCount", 1),
        instance_type=instance_type,
        scoring=ScoringSpec(
            image=desired.image,
            source=desired.source,
            model_uri=desired.model_uri,
            environment=desired.environment,
            resources=instance_type.resources,
            startup_timeout_s=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", ScoringSpec.startup_timeout_s),
            download_timeout_s=variant.get("ModelDataDownloadTimeoutInSeconds", ScoringSpec.download_timeout_s),
            invocation_timeout_s=variant.get("InvocationTimeoutInSeconds", ScoringSpec.invocation_timeout_s),
            max_body_bytes=variant.get("MaxPayloadInBytes", settings.max_body_bytes),
        ),
    )


def resolve_deployment(
    config_name: str, variant: Mapping[str, Any], model: ModelRecord, job: TrainingJobRecord | None
) -> Deployment:
    """Settle everything that a variant runs. `job` is the training job that the model came from, where it is known.

    Raises ValidationException where the model is a job's that has none, or has no image and no job to take it from.
    """
    container = model_container(model.request)
    uri = model_data_uri(container)
    if uri is not None and uri.startswith(JOB_SCHEME):
        uri = _model_of(job, uri)
    image, source = container.get("Image"), None
    if image is None:
        if job is None:
            raise ValidationException(
                f"Model {model.name} names no Image, and its data {uri} is not that of a training job known here. "
                "Create a model that names one"
            )
        image, source = job.request["AlgorithmSpecification"].get("TrainingImage"), source_of(job.request)
    return Deployment(
        config_name=config_name,
        model_name=model.name,
        variant=variant,
        image=image,
        source=source,
        model_uri=uri,
        environment=container.get("Environment", {}),
    )


def model_container(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one container of a CreateModel request."""
    container: Mapping[str, Any] = (
        request["PrimaryContainer"] if "PrimaryContainer" in request else request["Containers"][0]
    )
    return container


def model_data_uri(container: Mapping[str, Any]) -> str | None:
    """Where a container's model lies, as it was told; None where it lies in the image."""
    if "ModelDataSource" in container:
        uri: str = container["ModelDataSource"]["S3DataSource"]["S3Uri"]
        return uri
    return container.get("ModelDataUrl") or None


def job_named_by(uri: str) -> str:
    """The training job's name in `training-job://<name>`. Raises ValidationException for anything after it."""
    name, _, rest = uri.removeprefix(JOB_SCHEME).partition("/")
    if rest:
        raise ValidationException(
            f"ModelDataUrl {uri}: checkpoints as models are not supported yet; use {JOB_SCHEME}{name}"
        )
    return name


def source_of(request: Mapping[str, Any]) -> SourceSpec | None:
    """The source code of a training request, None where it names an image."""
    source = request["AlgorithmSpecification"].get("AlgorithmSource")
    return SourceSpec(source["SourceUri"], source["EntryPoint"], source.get("BaseImage")) if source else None


def model_location(job_name: str, request: Mapping[str, Any]) -> str:
    """Where a job's model will be stored: SageMaker's path."""
    output = request["OutputDataConfig"]
    name = "model" if output.get("CompressionType") == "NONE" else "model.tar.gz"
    return f"{output['S3OutputPath'].rstrip('/')}/{job_name}/output/{name}"


def max_runtime_s(request: Mapping[str, Any]) -> int:
    """How long user code may run."""
    return int(request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S))


def is_isolated(request: Mapping[str, Any], settings: Settings) -> bool:
    """Whether training containers have no network: as the request says, else as the setting does."""
    return bool(request.get("EnableNetworkIsolation", settings.training_network == "none"))


def _model_of(job: TrainingJobRecord | None, uri: str) -> str:
    if job is None:
        raise ValidationException(f"ModelDataUrl {uri}: there is no training job {job_named_by(uri)}")
    if not job.has_model or job.model_uri is None:
        raise ValidationException(f"ModelDataUrl {uri}: {explain_no_model(job)}")
    return job.model_uri


def explain_no_model(job: TrainingJobRecord) -> str:
    """Say why a job's model cannot be served."""
    if not job.status.ended:
        return f"training job {job.name} is {job.status} ({job.secondary}): wait for its end"
    if job.failure_reason:
        return f"training job {job.name} is {job.status} and has no model: {job.failure_reason}"
    return f"training job {job.name} is {job.status} and stored no model: write it to /opt/ml/model"


def _find_type(catalogue: Catalogue, name: str, whose: str) -> InstanceType:
    if name not in catalogue:
        raise CatalogueError(f"the instance type {name} of {whose} is no longer in the catalogue: put it back")
    return catalogue[name]


def _channel_spec(channel: Mapping[str, Any], algorithm: Mapping[str, Any]) -> ChannelSpec:
    source = channel["DataSource"]["S3DataSource"]
    return ChannelSpec(
        name=channel["ChannelName"],
        uri=source["S3Uri"],
        data_type=source["S3DataType"],
        distribution=source.get("S3DataDistributionType", "FullyReplicated"),
        content_type=channel.get("ContentType"),
        compression=channel.get("CompressionType", "None"),
        record_wrapper=channel.get("RecordWrapperType", "None"),
        input_mode=channel.get("InputMode", algorithm.get("TrainingInputMode", "File")),
    )


def _optional_tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
