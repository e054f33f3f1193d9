"""Records to specs: what one evaluation of a job is to run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.actors.spec import InstanceType, ScoringSpec
from raymaker.platform.catalogue import CatalogueError
from raymaker.platform.evaluating.evaluations import EvaluationRecord
from raymaker.platform.records import TrainingJobRecord
from raymaker.platform.specs import checkpoint_location, source_of, source_spec
from raymaker.serving.evaluation.spec import (
    DEFAULT_BATCH_COUNT,
    DEFAULT_THRESHOLD,
    AnswerShape,
    EvaluationData,
    EvaluationSpec,
    ProblemType,
)


def evaluation_spec(
    job: TrainingJobRecord, evaluation: EvaluationRecord, catalogue: Mapping[str, InstanceType]
) -> EvaluationSpec:
    """Say what an evaluation runs. Raises CatalogueError where its instance type is gone."""
    config = evaluation.config
    name = instance_type_name(job.request, config)
    if name not in catalogue:
        raise CatalogueError(f"the instance type {name} of an evaluation of {job.name} is no longer in the catalogue")
    return EvaluationSpec(
        job_name=job.name,
        job_arn=job.arn,
        number=evaluation.number,
        instance_type=catalogue[name],
        scoring=_scoring(job, evaluation, catalogue[name]),
        data=evaluation_data(job.request, config),
        problem=ProblemType(config["ProblemType"]),
        records_uri=records_uri(job.request, job.name, evaluation),
        answers=AnswerShape(
            inference=config.get("InferenceAttribute"),
            probability=config.get("ProbabilityAttribute"),
            threshold=config.get("ProbabilityThreshold", DEFAULT_THRESHOLD),
            classes=tuple(config.get("Classes", ())),
            positive_class=config.get("PositiveClass"),
        ),
        metrics=tuple(config.get("Metrics", ())),
        function=source_spec(config.get("MetricSource")),
        accept=config.get("Accept"),
        batch_count=config.get("MaxRecordsPerRequest", DEFAULT_BATCH_COUNT),
        timeout_s=config.get("InvocationTimeoutInSeconds", ScoringSpec.invocation_timeout_s),
    )


def evaluation_data(request: Mapping[str, Any], config: Mapping[str, Any]) -> EvaluationData:
    """The data of an EvaluationConfig: a channel of the training request, or its own."""
    channel = channel_of(request, config) or config
    source = channel["DataSource"]["S3DataSource"]
    return EvaluationData(
        uri=source["S3Uri"],
        data_type=source["S3DataType"],
        content_type=config.get("ContentType", channel.get("ContentType", "text/csv")),
        has_header=config.get("HasHeader", False),
        label=config.get("LabelAttribute"),
        labels_uri=config.get("LabelS3Uri"),
        tag=config.get("TagAttribute"),
        request_type=config.get("RequestContentType"),
    )


def channel_of(request: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The channel that an EvaluationConfig names; None where it names none, or one that is not there."""
    channels = request.get("InputDataConfig", [])
    return next((each for each in channels if each["ChannelName"] == config.get("ChannelName")), None)


def instance_type_name(request: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Where the scoring container runs: as the configuration says, else like the job's own instances."""
    return str(config.get("InstanceType", request["ResourceConfig"]["InstanceType"]))


def records_uri(request: Mapping[str, Any], job_name: str, evaluation: EvaluationRecord) -> str:
    """Where the results of single records go."""
    base = evaluation.config.get(
        "S3OutputPath", f"{request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job_name}"
    )
    return f"{base.rstrip('/')}/evaluations/{evaluation.number}/records.parquet"


def _scoring(job: TrainingJobRecord, evaluation: EvaluationRecord, instance_type: InstanceType) -> ScoringSpec:
    config = evaluation.config
    image, source = config.get("ScoringImage"), source_spec(config.get("ScoringSource"))
    if image is None and source is None:
        image, source = job.request["AlgorithmSpecification"].get("TrainingImage"), source_of(job.request)
    return ScoringSpec(
        image=image,
        source=source,
        model_uri=job.model_uri if evaluation.checkpoint is None else checkpoint_location(job),
        checkpoint=evaluation.checkpoint,
        environment=config.get("Environment", {}),
        resources=instance_type.resources,
        yields_cpu=True,
        startup_timeout_s=config.get("ContainerStartupHealthCheckTimeoutInSeconds", ScoringSpec.startup_timeout_s),
    )
