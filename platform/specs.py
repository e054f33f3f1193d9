"""Records to specs: what the platform was asked for, said in the words of those who run it. Pure.

Also the one place where a model is resolved: which archive, and which image or source serves it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from raymaker.actors.spec import (
    ArrowSpec,
    ChannelSpec,
    InstanceType,
    MetricDefinition,
    Network,
    Placement,
    Resources,
    ScoringSpec,
    SourceSpec,
    TrainingSpec,
)
from raymaker.platform import transitions
from raymaker.platform.catalogue import CatalogueError
from raymaker.platform.changing.job_updates import revisions_of
from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting import rollout
from raymaker.platform.hosting.hosting_specs import async_spec, capture_spec, graph_spec
from raymaker.platform.hosting.scaling_specs import initial_count, instance_type_of, most_pending, scaling_spec
from raymaker.platform.operations.inference_graphs import MULTI_MODEL, container_hostnames, execution_mode, expand_graph
from raymaker.platform.records import (
    Deployment,
    EndpointRecord,
    ModelRecord,
    ResolvedContainer,
    ResolvedVariant,
    TrainingJobRecord,
)
from raymaker.platform.settings import Settings
from raymaker.serving.spec import EndpointSpec, VariantSpec

DEFAULT_MAX_RUNTIME_S = 86_400
JOB_SCHEME = "training-job://"
LATEST = "latest"
"""Stands for the name of the checkpoint that was written last."""

Catalogue = Mapping[str, InstanceType]
Origins = Mapping[str, TrainingJobRecord]
"""The training jobs that stored model data, by the URIs that this was told by; those that are known here."""


def training_spec(record: TrainingJobRecord, catalogue: Catalogue, settings: Settings) -> TrainingSpec:
    """Say what the job's current attempt is to run. Raises CatalogueError where its instance type is gone."""
    request = record.request
    algorithm, output = request["AlgorithmSpecification"], request["OutputDataConfig"]
    checkpoints, resources = request.get("CheckpointConfig", {}), request["ResourceConfig"]
    least_count, most_count = instance_counts(resources)
    return TrainingSpec(
        job_name=record.name,
        job_arn=record.arn,
        region=settings.region,
        attempt=record.attempt,
        instance_type=_find_type(catalogue, resources["InstanceType"], f"training job {record.name}"),
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
        instance_count=most_count,
        min_instance_count=least_count if least_count < most_count else None,
        containers_per_instance=resources.get("ContainersPerInstance", 1),
        placement=Placement(resources.get("PlacementStrategy", Placement.PACK.value)),
        max_failures=transitions.max_attempts(record) - 1,
        retries_errors="RetryStrategy" in request,
        start=record.start,
        revisions=revisions_of(record),
        warm_pool=record.warm_pool.pool_id if record.warm_pool is not None else None,
    )


def endpoint_spec(
    record: EndpointRecord, deployment: Deployment, catalogue: Catalogue, settings: Settings
) -> EndpointSpec:
    """Say what a deployment of the endpoint is to run. Raises CatalogueError where its instance type is gone."""

    def variant_spec(variant: ResolvedVariant) -> VariantSpec:
        instance_type = instance_type_of(variant.request) or _find_type(
            catalogue, variant.request["InstanceType"], f"endpoint {record.name}"
        )
        return _variant_spec(variant, instance_type, settings)

    return EndpointSpec(
        endpoint_name=record.name,
        config_name=deployment.config_name,
        generation=record.generation,
        revision=deployment.revision,
        variants=tuple(map(variant_spec, deployment.variants)),
        shadows=tuple(map(variant_spec, deployment.shadows)),
        endpoint_arn=record.arn,
        capture=capture_spec(deployment.data_capture),
        asynchronous=async_spec(deployment.async_inference),
        is_routed=deployment.is_routed,
        step=rollout.front_step(record),
    )


def resolve_variant(request: Mapping[str, Any], models: Sequence[tuple[ModelRecord, Origins]]) -> ResolvedVariant:
    """Settle everything that a variant runs: of the first model, and of those that its graph calls by their names.

    Each comes with the origins that `resolve_containers` takes, whose errors are raised.
    """
    (model, origins), *called = models
    containers, graph = resolve_containers(model, origins), model.request.get("InferenceGraph")
    for other, its_origins in called:
        found = resolve_containers(other, its_origins)
        names = [f"{other.name}.{each.hostname}" for each in found] if len(found) > 1 else [other.name]
        named = zip(found, names, strict=True)
        containers = (*containers, *(dataclasses.replace(each, hostname=name) for each, name in named))
    if graph is not None:
        graph = expand_graph(graph, {other.name: other.request for other, _ in called if not is_plain(other.request)})
    return ResolvedVariant(
        request=request,
        model_name=model.name,
        containers=containers,
        execution_mode=execution_mode(model.request) if len(containers) > 1 and graph is None else None,
        inference_graph=graph,
        weight=request.get("InitialVariantWeight", ResolvedVariant.weight),
        instance_count=initial_count(request),
    )


def resolve_containers(model: ModelRecord, origins: Origins) -> tuple[ResolvedContainer, ...]:
    """Settle what a model's containers run.

    Raises ValidationException where the model is a job's that has none, or has no image and no job to take it from.
    """
    containers = model_containers(model.request)
    hostnames = container_hostnames(containers) if len(containers) > 1 else [None] * len(containers)
    resolved = zip(containers, hostnames, strict=True)
    return tuple(_resolve_container(model.name, container, origins, hostname) for container, hostname in resolved)


def model_containers(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The containers of a CreateModel request, in their order."""
    first = [request["PrimaryContainer"]] if "PrimaryContainer" in request else []
    return [*first, *request.get("Containers", [])]


def is_plain(request: Mapping[str, Any]) -> bool:
    """Tell whether a model is one container that serves one model."""
    containers = model_containers(request)
    return len(containers) == 1 and "InferenceGraph" not in request and containers[0].get("Mode") != MULTI_MODEL


def model_data_uri(container: Mapping[str, Any]) -> str | None:
    """Where a container's model lies, as it was told; None where it lies in the image."""
    if "ModelDataSource" in container:
        uri: str = container["ModelDataSource"]["S3DataSource"]["S3Uri"]
        return uri
    return container.get("ModelDataUrl") or None


def additional_sources(container: Mapping[str, Any]) -> dict[str, str]:
    """Where the models lie that a container has beside its own, as it was told, by channel."""
    sources = container.get("AdditionalModelDataSources", [])
    return {source["ChannelName"]: source["S3DataSource"]["S3Uri"] for source in sources}


def job_named_by(uri: str) -> str:
    """The training job's name in `training-job://<name>`, or in what names one of its checkpoints."""
    return uri.removeprefix(JOB_SCHEME).partition("/")[0]


def checkpoint_named_by(uri: str) -> str | None:
    """The checkpoint's name in `training-job://<name>/checkpoints/<checkpoint>`, None where the job's model is meant.

    Raises ValidationException for anything else.
    """
    name, slash, rest = uri.removeprefix(JOB_SCHEME).partition("/")
    if not uri.startswith(JOB_SCHEME) or not slash:
        return None
    folder, _, checkpoint = rest.partition("/")
    if folder != "checkpoints" or not checkpoint or "/" in checkpoint:
        raise ValidationException(
            f"ModelDataUrl {uri} names nothing: use {JOB_SCHEME}{name}, or {JOB_SCHEME}{name}/checkpoints/ and "
            f"the name of one, or {LATEST}"
        )
    return checkpoint


def checkpoint_location(job: TrainingJobRecord) -> str:
    """Where a job's checkpoints are stored. Raises ValidationException where they are not."""
    uri: str | None = job.request.get("CheckpointConfig", {}).get("S3Uri")
    if uri is None:
        raise ValidationException(f"training job {job.name} stores no checkpoints: it has no CheckpointConfig")
    return uri


def source_of(request: Mapping[str, Any]) -> SourceSpec | None:
    """The source code of a training request, None where it names an image."""
    return source_spec(request["AlgorithmSpecification"].get("AlgorithmSource"))


def source_spec(told: Mapping[str, Any] | None) -> SourceSpec | None:
    """An AlgorithmSource as a request tells it."""
    return SourceSpec(told["SourceUri"], told["EntryPoint"], told.get("BaseImage")) if told else None


def model_location(job_name: str, request: Mapping[str, Any]) -> str:
    """Where a job's model will be stored: SageMaker's path."""
    output = request["OutputDataConfig"]
    name = "model" if output.get("CompressionType") == "NONE" else "model.tar.gz"
    return f"{output['S3OutputPath'].rstrip('/')}/{job_name}/output/{name}"


def instance_counts(resources: Mapping[str, Any]) -> tuple[int, int]:
    """The fewest and the most instances that a ResourceConfig asks for.

    MinInstanceCount and MaxInstanceCount are InstanceCount where they are left out, and it is the most of them.
    """
    least, most = resources.get("MinInstanceCount"), resources.get("MaxInstanceCount")
    count = resources.get("InstanceCount", most or least or 1)
    return least or count, most or count


def max_runtime_s(request: Mapping[str, Any]) -> int:
    """How long user code may run."""
    return int(request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S))


def is_isolated(request: Mapping[str, Any], settings: Settings) -> bool:
    """Whether training containers have no network: as the request says, else as the setting does."""
    return bool(request.get("EnableNetworkIsolation", settings.training_network == "none"))


def _resolve_container(
    model_name: str, container: Mapping[str, Any], origins: Origins, hostname: str | None
) -> ResolvedContainer:
    told = model_data_uri(container)
    uri, job = _settle(told, origins) if told is not None else None, origins.get(told or "")
    checkpoint = checkpoint_named_by(told) if told is not None else None
    image, source = container.get("Image"), None
    if image is None:
        if job is None:
            raise ValidationException(
                f"Model {model_name} names no Image, and its data {uri} is not that of a training job known here. "
                "Create a model that names one"
            )
        image, source = job.request["AlgorithmSpecification"].get("TrainingImage"), source_of(job.request)
    return ResolvedContainer(
        image=image,
        source=source,
        model_uri=uri,
        environment=container.get("Environment", {}),
        hostname=hostname or container.get("ContainerHostname"),
        multi_model=container.get("Mode") == MULTI_MODEL,
        keeps_models=container.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled") == "Enabled",
        checkpoint=checkpoint,
        additional_models={name: _settle(each, origins) for name, each in additional_sources(container).items()},
    )


def _variant_spec(variant: ResolvedVariant, instance_type: InstanceType, settings: Settings) -> VariantSpec:
    resources = instance_type.resources.share(len(variant.containers))
    scorings = [_scoring_spec(variant.request, container, resources, settings) for container in variant.containers]
    return VariantSpec(
        name=variant.name,
        weight=variant.weight,
        replica_count=variant.instance_count,
        instance_type=instance_type,
        scoring=scorings[0],
        graph=graph_spec(variant, scorings),
        scaling=scaling_spec(variant.request, settings),
        max_pending_requests=most_pending(variant.request),
        throttles="ServerlessConfig" in variant.request,
    )


def _scoring_spec(
    request: Mapping[str, Any], container: ResolvedContainer, resources: Resources, settings: Settings
) -> ScoringSpec:
    return ScoringSpec(
        image=container.image,
        source=container.source,
        model_uri=container.model_uri,
        environment=container.environment,
        resources=resources,
        startup_timeout_s=request.get("ContainerStartupHealthCheckTimeoutInSeconds", ScoringSpec.startup_timeout_s),
        download_timeout_s=request.get("ModelDataDownloadTimeoutInSeconds", ScoringSpec.download_timeout_s),
        invocation_timeout_s=request.get("InvocationTimeoutInSeconds", ScoringSpec.invocation_timeout_s),
        max_body_bytes=request.get("MaxPayloadInBytes", settings.max_body_bytes),
        multi_model=container.multi_model,
        keeps_models=container.keeps_models,
        additional_models=container.additional_models,
        checkpoint=container.checkpoint,
    )


def _settle(uri: str, origins: Origins) -> str:
    """Where a model lies: as it was told, or where the job that it names has stored it."""
    if not uri.startswith(JOB_SCHEME):
        return uri
    job = origins.get(uri)
    if job is not None and checkpoint_named_by(uri) is not None:
        return checkpoint_location(job)
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
        shard_by=channel.get("ShardBy", "Object"),
        attribute_names=tuple(source.get("AttributeNames", ())),
        shuffle_seed=channel.get("ShuffleConfig", {}).get("Seed"),
        arrow=_arrow_spec(channel.get("ArrowConfig", {})),
    )


def _arrow_spec(config: Mapping[str, Any]) -> ArrowSpec:
    counts = {"BatchRowCount": "batch_rows_count", "ShuffleRowCount": "shuffle_rows_count"}
    return ArrowSpec(
        columns=tuple(config.get("Columns", ())),
        filters=tuple((it["Column"], it["Operator"], tuple(it["Values"])) for it in config.get("Filters", ())),
        **{name: config[field] for field, name in counts.items() if field in config},
    )


def _optional_tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
