"""Training jobs: create, describe, list, stop, delete. Creating one only writes its record; `reconcile` starts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from raymaker.platform import transitions
from raymaker.platform.comparing import comparison
from raymaker.platform.comparing.algorithms import (
    algorithms_of,
    check_algorithms,
    child_name,
    choose_by_content,
    expand,
    is_comparison,
)
from raymaker.platform.comparing.comparison import Candidate
from raymaker.platform.comparing.reconcile_comparisons import find_candidates
from raymaker.platform.database import metrics, training
from raymaker.platform.database.line import say_where
from raymaker.platform.database.tags import put_tags
from raymaker.platform.errors import ResourceInUse, ValidationException
from raymaker.platform.operations.checks import read_listing, read_tags, without_tags
from raymaker.platform.operations.naming import TRAINING_JOB, as_time, make_arn, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.operations.training_checks import check_training_request
from raymaker.platform.operations.training_updates import describe_update
from raymaker.platform.phases import IllegalMove
from raymaker.platform.pools import keeping
from raymaker.platform.records import MetricRecord, SecondaryStatus, StatusTransition, TrainingJobRecord
from raymaker.platform.specs import is_isolated, max_runtime_s, model_location

_DESCRIBED_AS_GIVEN = (
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "DebugHookConfig",
    "DebugRuleConfigurations",
    "ExperimentConfig",
    "ProfilerConfig",
    "ProfilerRuleConfigurations",
    "Environment",
    "RetryStrategy",
    "RemoteDebugConfig",
    "InfraCheckConfig",
    "EvaluationConfig",
)


@operation("CreateTrainingJob")
def create_training_job(context: Context, request: Request) -> Answer:
    """Accept a job: durable when this answers. Raises ResourceInUse where the name is taken."""
    check_algorithms(request)
    if algorithms_of(request) and not is_comparison(request):
        request = choose_by_content(request)
    parts = list(expand(request).values()) if is_comparison(request) else []
    for job in parts or [request]:
        check_training_request(context, job)
    with context.database.transaction() as connection:
        arns = [_insert(context, connection, job) for job in (*parts, request)]
    context.cluster.wake()
    return {"TrainingJobArn": arns[-1]}


def _insert(context: Context, connection: Connection, request: Request) -> str:
    """Write a job, and return its ARN. Raises ResourceInUse where its name is taken."""
    tags = read_tags(request)
    name = request["TrainingJobName"]
    arn = make_arn(context, TRAINING_JOB, name)
    record = transitions.create_training_job(name, arn, context.account, without_tags(request), context.now())
    if not training.insert_training_job(connection, record):
        raise ResourceInUse(
            "Training job names must be unique within an AWS account and region, and a training job with this "
            f"name already exists ({arn})"
        )
    put_tags(connection, arn, tags)
    return arn


@operation("DescribeTrainingJob")
def describe_training_job(context: Context, request: Request) -> Answer:
    """Tell everything about a job."""
    with context.database.reading() as connection:
        record = training.find_training_job(connection, request["TrainingJobName"])
        if record is None:
            raise not_found(context, TRAINING_JOB, request["TrainingJobName"])
        final = metrics.final_metrics(connection, record.name)
        candidates = find_candidates(connection, record) if is_comparison(record.request) else {}
        where = say_where(connection, record) if record.secondary is SecondaryStatus.PENDING else ""
    answer = _describe(context, record, final)
    answer["SecondaryStatusTransitions"][-1]["StatusMessage"] += where
    return {**answer, "AlgorithmTrainingJobs": _describe_candidates(record, candidates)}


@operation("ListTrainingJobs")
def list_training_jobs(context: Context, request: Request) -> Answer:
    """Tell of jobs, a page at a time."""
    if "TrainingPlanArnEquals" in request:
        return {"TrainingJobSummaries": []}  # no job here has a training plan
    with context.database.reading() as connection:
        records, token = training.list_training_jobs(connection, read_listing(request, default_order="Ascending"))
    now = context.now()
    return {"TrainingJobSummaries": [_summarise(record, now) for record in records], "NextToken": token}


@operation("StopTrainingJob")
def stop_training_job(context: Context, request: Request) -> Answer:
    """Ask a job to stop; one that waits is Stopped when this answers."""
    name, now = request["TrainingJobName"], context.now()

    def stop(record: TrainingJobRecord) -> TrainingJobRecord:
        if record.status.ended:
            raise ValidationException(
                f"The request was rejected because the training job is in status {record.status}."
            )
        if is_comparison(record.request):
            return comparison.request_stop(record, now)
        return transitions.request_stop(record, now, deletes_model=request.get("DeleteModelData", False))

    try:
        with context.database.transaction() as connection:
            stopped = training.move_training_job(connection, name, stop)
            for candidate in find_candidates(connection, stopped).values() if is_comparison(stopped.request) else ():
                if candidate.record is not None and not candidate.record.status.ended:
                    training.move_training_job(connection, candidate.record.name, stop)
    except training.JobMissing:
        raise not_found(context, TRAINING_JOB, name) from None
    except IllegalMove as error:
        raise ValidationException(
            f"The request was rejected: {error}. Leave DeleteModelData out, and delete the model at its place"
        ) from None
    context.cluster.wake()
    return {}


@operation("DeleteTrainingJob")
def delete_training_job(context: Context, request: Request) -> Answer:
    """Forget a job that has ended. What it stored stays. Raises ResourceInUse for one that has not."""
    with context.database.transaction() as connection:
        record = training.find_training_job(connection, request["TrainingJobName"], lock=True)
        if record is None:
            raise not_found(context, TRAINING_JOB, request["TrainingJobName"])
        if not record.status.ended:
            raise ResourceInUse(
                f"Training job {record.name} is in status {record.status} and cannot be deleted. "
                "Stop it and wait for its end first"
            )
        if keeping.kept_until(record) is not None:
            raise ResourceInUse(
                f"The warm pool of training job {record.name} is Available, so the job cannot be deleted. Set "
                "ResourceConfig.KeepAlivePeriodInSeconds to 0 with UpdateTrainingJob first, or wait until it is over"
            )
        training.delete_training_job(connection, record)
    return {}


def _describe(context: Context, record: TrainingJobRecord, final: list[MetricRecord]) -> Answer:
    answer: Answer = {key: record.request[key] for key in _DESCRIBED_AS_GIVEN if key in record.request}
    return answer | {
        "TrainingJobName": record.name,
        "TrainingJobArn": record.arn,
        "TrainingJobStatus": record.status,
        "SecondaryStatus": record.secondary,
        "SecondaryStatusTransitions": [_describe_transition(stay) for stay in record.transitions],
        "FailureReason": record.failure_reason,
        "ModelArtifacts": {"S3ModelArtifacts": _model_artifacts(record)},
        "StoppingCondition": {
            **record.request.get("StoppingCondition", {}),
            "MaxRuntimeInSeconds": max_runtime_s(record.request),
        },
        "EnableNetworkIsolation": is_isolated(record.request, context.settings),
        "CreationTime": as_time(record.created_at),
        "LastModifiedTime": as_time(record.modified_at),
        "TrainingStartTime": as_time(record.started_at),
        "TrainingEndTime": as_time(record.ended_at),
        "TrainingTimeInSeconds": record.training_time_s,
        "BillableTimeInSeconds": record.training_time_s,
        "FinalMetricDataList": [_describe_metric(metric) for metric in final],
        "Revision": record.revision,
        "Updates": [describe_update(update) for update in record.updates],
        "WarmPoolStatus": _describe_pool(record, context.now()),
    }


def _describe_candidates(record: TrainingJobRecord, candidates: Mapping[str, Candidate]) -> list[dict[str, Any]]:
    """Tell of the jobs in which a comparison's algorithms train."""
    return [
        {
            "AlgorithmName": name,
            "TrainingJobName": child_name(record.name, name),
            "TrainingJobStatus": candidate.record.status if candidate.record is not None else None,
            "SecondaryStatus": candidate.record.secondary if candidate.record is not None else None,
            "FailureReason": candidate.record.failure_reason if candidate.record is not None else "it was deleted",
            "Metrics": candidate.metrics,
        }
        for name, candidate in candidates.items()
    ]


def _model_artifacts(record: TrainingJobRecord) -> str:
    """Where the model lies, or will lie while the job goes on; '' where it ended without one."""
    return (record.model_uri or "") if record.status.ended else model_location(record.name, record.request)


def _describe_transition(stay: StatusTransition) -> dict[str, Any]:
    return {
        "Status": stay.status,
        "StartTime": as_time(stay.started_at),
        "EndTime": as_time(stay.ended_at),
        "StatusMessage": stay.message,
    }


def _describe_metric(metric: MetricRecord) -> dict[str, Any]:
    return {"MetricName": metric.name, "Value": metric.value, "Timestamp": as_time(metric.time)}


def _describe_pool(record: TrainingJobRecord, now: float) -> dict[str, Any] | None:
    pool = record.warm_pool
    if pool is None:
        return None
    return {
        "Status": pool.status,
        "ResourceRetainedBillableTimeInSeconds": pool.retained_s(now),
        "ReusedByJob": pool.reused_by,
        "KeptUntil": as_time(keeping.kept_until(record)),
        "TerminationReason": pool.reason or None,
    }


def _summarise(record: TrainingJobRecord, now: float) -> dict[str, Any]:
    return {
        "TrainingJobName": record.name,
        "TrainingJobArn": record.arn,
        "TrainingJobStatus": record.status,
        "SecondaryStatus": record.secondary,
        "CreationTime": as_time(record.created_at),
        "LastModifiedTime": as_time(record.modified_at),
        "TrainingEndTime": as_time(record.ended_at),
        "WarmPoolStatus": _describe_pool(record, now),
    }
