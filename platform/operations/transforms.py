"""Transform jobs: create, describe, list, stop. Creating one only writes its record; the reconciler starts it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from raymaker.platform.database import transforms
from raymaker.platform.database.line import say_where
from raymaker.platform.database.tags import put_tags
from raymaker.platform.errors import ResourceInUse, ValidationException
from raymaker.platform.operations.checks import read_listing, read_tags, without_tags
from raymaker.platform.operations.models import find_model, find_origins
from raymaker.platform.operations.naming import TRANSFORM_JOB, as_time, make_arn, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.operations.transform_checks import check_transform_request
from raymaker.platform.specs import is_plain, resolve_containers
from raymaker.platform.transforming import transform_jobs
from raymaker.platform.transforming.transform_jobs import TransformJobRecord, TransformModel
from raymaker.platform.transforming.transform_specs import max_runtime_s

_DESCRIBED_AS_GIVEN = (
    "ModelName",
    "MaxConcurrentTransforms",
    "ModelClientConfig",
    "MaxPayloadInMB",
    "BatchStrategy",
    "Environment",
    "TransformInput",
    "TransformOutput",
    "TransformResources",
    "ExperimentConfig",
)


@operation("CreateTransformJob")
def create_transform_job(context: Context, request: Request) -> Answer:
    """Accept a job: durable when this answers. Raises ResourceInUse where the name is taken."""
    check_transform_request(context, request)
    tags = read_tags(request)
    name = request["TransformJobName"]
    arn = make_arn(context, TRANSFORM_JOB, name)
    with context.database.transaction() as connection:
        model = _resolve_model(context, connection, request["ModelName"])
        record = transform_jobs.create_transform_job(
            name, arn, context.account, without_tags(request), model=model, now=context.now()
        )
        if not transforms.insert_transform_job(connection, record):
            raise ResourceInUse(
                "Job name must be unique within an AWS account and region, and a job with this name already exists "
                f"({arn})"
            )
        put_tags(connection, arn, tags)
    context.cluster.wake()
    return {"TransformJobArn": arn}


@operation("DescribeTransformJob")
def describe_transform_job(context: Context, request: Request) -> Answer:
    """Tell everything about a job."""
    with context.database.reading() as connection:
        record = transforms.find_transform_job(connection, request["TransformJobName"])
        if record is None:
            raise not_found(context, TRANSFORM_JOB, request["TransformJobName"])
        where = say_where(connection, record) if record.is_waiting else ""
    answer = _describe(record)
    return {**answer, "TransformJobMessage": f"{answer['TransformJobMessage']}{where}"}


@operation("ListTransformJobs")
def list_transform_jobs(context: Context, request: Request) -> Answer:
    """Tell of jobs, a page at a time."""
    with context.database.reading() as connection:
        records, token = transforms.list_transform_jobs(connection, read_listing(request, default_order="Descending"))
    return {"TransformJobSummaries": [_summarise(record) for record in records], "NextToken": token}


@operation("StopTransformJob")
def stop_transform_job(context: Context, request: Request) -> Answer:
    """Ask a job to stop; one that waits is Stopped when this answers."""
    name, now = request["TransformJobName"], context.now()

    def stop(record: TransformJobRecord) -> TransformJobRecord:
        if record.status.ended:
            raise ValidationException(
                f"The request was rejected because the transform job is in status {record.status}."
            )
        return transform_jobs.request_stop(record, now)

    try:
        with context.database.transaction() as connection:
            transforms.move_transform_job(connection, name, stop)
    except transforms.JobMissing:
        raise not_found(context, TRANSFORM_JOB, name) from None
    context.cluster.wake()
    return {}


def _resolve_model(context: Context, connection: Connection, name: str) -> TransformModel:
    """Settle what the job's container runs. Raises ValidationException where the model is gone or not to be had."""
    model = find_model(context, connection, name)
    if not is_plain(model.request):
        raise ValidationException(
            f"ModelName: model {name} has several containers or many models: a transform job runs one of one"
        )
    (found,) = resolve_containers(model, find_origins(connection, model.request))
    if found.checkpoint is not None:
        raise ValidationException(
            f"ModelName: model {name} is a checkpoint, which no transform job runs: give the model of a job that ended"
        )
    return TransformModel(
        found.image, found.source, found.model_uri, found.environment, additional_models=found.additional_models
    )


def _describe(record: TransformJobRecord) -> Answer:
    answer: Answer = {key: record.request[key] for key in _DESCRIBED_AS_GIVEN if key in record.request}
    progress = record.progress
    return answer | {
        "TransformJobName": record.name,
        "TransformJobArn": record.arn,
        "TransformJobStatus": record.status,
        "TransformJobMessage": record.message,
        "FailureReason": record.failure_reason,
        "DataProcessing": {
            "InputFilter": "$",
            "OutputFilter": "$",
            "JoinSource": "None",
            **record.request.get("DataProcessing", {}),
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": max_runtime_s(record.request)},
        "CreationTime": as_time(record.created_at),
        "TransformStartTime": as_time(record.started_at),
        "TransformEndTime": as_time(record.ended_at),
        "TransformProgress": {
            "ObjectCount": progress.object_count,
            "ObjectsDone": progress.done_count,
            "ObjectsFailed": progress.failed_count,
            "RecordCount": progress.record_count,
            "InputBytes": progress.input_bytes,
            "OutputBytes": progress.output_bytes,
        },
    }


def _summarise(record: TransformJobRecord) -> dict[str, Any]:
    return {
        "TransformJobName": record.name,
        "TransformJobArn": record.arn,
        "TransformJobStatus": record.status,
        "FailureReason": record.failure_reason,
        "CreationTime": as_time(record.created_at),
        "LastModifiedTime": as_time(record.modified_at),
        "TransformEndTime": as_time(record.ended_at),
    }
