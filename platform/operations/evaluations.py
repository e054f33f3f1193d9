"""Evaluations: start, list, stop, and the results of single records: how good a job's models are, and where wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import Connection

from raymaker.actors.errors import StorageError
from raymaker.actors.storage import ObjectStore
from raymaker.platform.cluster.site import site_of
from raymaker.platform.database import evaluations
from raymaker.platform.database.statements import decode_token, encode_token
from raymaker.platform.errors import ValidationException
from raymaker.platform.evaluating import evaluations as moves
from raymaker.platform.evaluating.evaluation_specs import records_uri
from raymaker.platform.evaluating.evaluations import EvaluationRecord, EvaluationStatus, Trigger
from raymaker.platform.operations.captured import STORE_RETRY_S
from raymaker.platform.operations.checkpoints import choose_checkpoint, find_job
from raymaker.platform.operations.evaluation_checks import check_evaluation_config
from raymaker.platform.operations.naming import as_time
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.phases import IllegalMove
from raymaker.platform.records import TrainingJobRecord
from raymaker.platform.specs import LATEST, explain_no_model
from raymaker.serving.evaluation.records import RecordQuery, RecordResult, read_records

DEFAULT_PAGE_COUNT = 100


@operation("StartEvaluation")
def start_evaluation(context: Context, request: Request) -> Answer:
    """Have a checkpoint or the model of a job evaluated; durable when it answers."""
    job = find_job(context, request["TrainingJobName"])
    config = request.get("EvaluationConfig", job.request.get("EvaluationConfig"))
    if config is None:
        raise ValidationException(f"EvaluationConfig: training job {job.name} was given none, so give one here")
    check_evaluation_config(context, job.request, config)
    found = None
    if "CheckpointName" in request or not job.status.ended:
        found = choose_checkpoint(context, job, request.get("CheckpointName", LATEST))
    elif not job.has_model:
        raise ValidationException(f"TrainingJobName: nothing to evaluate, {explain_no_model(job)}")
    with context.database.transaction() as connection:
        record = evaluations.insert_evaluation(
            connection,
            job,
            Trigger.REQUEST,
            config,
            now=context.now(),
            checkpoint=found.name if found is not None else None,
            checkpoint_at=found.modified_at if found is not None else None,
        )
    context.cluster.wake()
    return {"EvaluationNumber": record.number}


@operation("ListEvaluations")
def list_evaluations(context: Context, request: Request) -> Answer:
    """Tell of a job's evaluations, a page at a time."""
    job = find_job(context, request["TrainingJobName"])
    limit_count = request.get("MaxResults", DEFAULT_PAGE_COUNT)
    after_number = _read_token(request["NextToken"]) if "NextToken" in request else 0
    with context.database.reading() as connection:
        found = evaluations.list_evaluations(
            connection,
            job.name,
            after_number=after_number,
            limit_count=limit_count + 1,
            status=request.get("StatusEquals"),
        )
    token = encode_token([found[limit_count - 1].number]) if len(found) > limit_count else None
    return {"Evaluations": [_describe(job, record) for record in found[:limit_count]], "NextToken": token}


@operation("StopEvaluation")
def stop_evaluation(context: Context, request: Request) -> Answer:
    """End an evaluation; its container goes soon after."""
    job, number, now = find_job(context, request["TrainingJobName"]), request["EvaluationNumber"], context.now()
    with context.database.transaction() as connection:
        _find(connection, job, number)
        try:
            evaluations.move_evaluation(connection, job.name, number, lambda record: moves.stop(record, now))
        except IllegalMove as error:
            raise ValidationException(f"EvaluationNumber: {error}") from error
    context.cluster.wake()
    return {}


@operation("GetEvaluationRecords")
def get_evaluation_records(context: Context, request: Request) -> Answer:
    """Tell the results of single records, from where the evaluation stored them."""
    job = find_job(context, request["TrainingJobName"])
    with context.database.reading() as connection:
        if "EvaluationNumber" in request:
            record = _find(connection, job, request["EvaluationNumber"])
        elif (last := evaluations.last_evaluation(connection, job.name, EvaluationStatus.COMPLETED)) is not None:
            record = last
        else:
            raise ValidationException(f"training job {job.name} has no evaluation that has completed")
    if record.status is not EvaluationStatus.COMPLETED:
        raise ValidationException(
            f"EvaluationNumber: evaluation {record.number} of {job.name} is {record.status}, so it has no records"
        )
    query = RecordQuery(
        order=request.get("Order", RecordQuery.order),
        count=request.get("MaxResults", RecordQuery.count),
        label=request.get("LabelEquals"),
        output=request.get("OutputEquals"),
        least_difference=request.get("MinimumDifference"),
        most_difference=request.get("MaximumDifference"),
        only_wrong=request.get("OnlyWrong", False),
    )
    store = ObjectStore(dataclasses.replace(site_of(context.settings).store, retry_s=STORE_RETRY_S))
    try:
        found = read_records(store, records_uri(job.request, job.name, record), query)
    except StorageError as error:
        raise ValidationException(f"the records of evaluation {record.number} cannot be read: {error}") from error
    return {"EvaluationNumber": record.number, "Records": [_describe_record(each) for each in found]}


def _find(connection: Connection, job: TrainingJobRecord, number: int) -> EvaluationRecord:
    record = evaluations.find_evaluation(connection, job.name, number)
    if record is None:
        raise ValidationException(f"EvaluationNumber: training job {job.name} has no evaluation {number}")
    return record


def _read_token(token: str) -> int:
    match decode_token(token):
        case [int() as number]:
            return number
        case _:
            raise ValidationException("NextToken is none that ListEvaluations gave; begin without one")


def _describe(job: TrainingJobRecord, record: EvaluationRecord) -> dict[str, Any]:
    has_completed = record.status is EvaluationStatus.COMPLETED
    return {
        "EvaluationNumber": record.number,
        "EvaluationStatus": record.status,
        "Trigger": record.trigger,
        "CheckpointName": record.checkpoint,
        "CreationTime": as_time(record.created_at),
        "StartTime": as_time(record.started_at),
        "EndTime": as_time(record.ended_at),
        "Message": record.message,
        "FailureReason": record.failure_reason,
        "RecordCount": record.record_count,
        "Metrics": record.metrics,
        "Distributions": record.distributions,
        "RecordsS3Uri": records_uri(job.request, job.name, record) if has_completed else None,
    }


def _describe_record(found: RecordResult) -> dict[str, Any]:
    return {
        "RecordNumber": found.record,
        "Source": found.where,
        "Tag": found.tag,
        "Input": found.input,
        "Output": found.output,
        "Label": found.label,
        "Difference": found.difference,
        "Confidence": found.confidence,
        "IsRight": found.is_right,
    }
