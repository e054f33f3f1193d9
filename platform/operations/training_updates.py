"""UpdateTrainingJob: changes of a job that trains. Accepting one only writes it down; the job's machines make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.actors.spec import Manner
from raymaker.platform.changing.changes import CHANGES, KEPT_ONLY, changed_request, manner_of, moved_resources
from raymaker.platform.changing.job_updates import ChangeUnderWay
from raymaker.platform.changing.update_record import JobUpdate
from raymaker.platform.comparing.algorithms import algorithms_of, child_name, is_comparison
from raymaker.platform.database import training, updates
from raymaker.platform.errors import ResourceInUse, ValidationException
from raymaker.platform.operations.checks import refuse_fields
from raymaker.platform.operations.naming import TRAINING_JOB, as_time, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.operations.resource_checks import check_resources
from raymaker.platform.operations.training_checks import HONOURED_NOWHERE, check_entry_point, check_image
from raymaker.platform.phases import IllegalMove
from raymaker.platform.pools import keeping
from raymaker.platform.records import TrainingJobRecord

MOST_HYPERPARAMETERS = 100
"""SageMaker's limit, which holds for those of a job together."""
_CONSENT = "IfNotHeard must be Restart, since"


@operation("UpdateTrainingJob")
def update_training_job(context: Context, request: Request) -> Answer:
    """Accept a change: durable when this answers. Raises ResourceInUse while another one is under way."""
    name, changes = request["TrainingJobName"], {key: it for key, it in request.items() if key != "TrainingJobName"}
    _check_fields(changes)
    with context.database.reading() as connection:
        record = training.find_training_job(connection, name)
    if record is None:
        raise not_found(context, TRAINING_JOB, name)
    if is_comparison(record.request):
        names = ", ".join(child_name(name, algorithm["Name"]) for algorithm in algorithms_of(record.request))
        raise ValidationException(
            f"TrainingJobName: {name} runs nothing itself; update the jobs of its algorithms: {names}"
        )
    _check_changes(context, record, changes)
    try:
        with context.database.transaction() as connection:
            accepted = updates.request_update(connection, name, changes, context.caller, context.now())
    except training.JobMissing:
        raise not_found(context, TRAINING_JOB, name) from None
    except ChangeUnderWay as error:
        raise ResourceInUse(f"{error}. Wait until DescribeTrainingJob tells that it is Applied or Failed") from None
    except IllegalMove as error:
        raise ValidationException(f"The request was rejected: {error}. Only a job that trains can be changed") from None
    context.cluster.wake()
    return {"TrainingJobArn": accepted.arn, "Revision": accepted.updates[-1].revision}


def describe_update(update: JobUpdate) -> dict[str, Any]:
    """Tell of one change, as DescribeTrainingJob does."""
    return {
        "Revision": update.revision,
        "Status": update.status,
        "RequestedBy": update.requested_by,
        "RequestTime": as_time(update.requested_at),
        "SettledTime": as_time(update.settled_at),
        "Summary": list(update.summary),
        "HeardByRanks": list(update.heard_by),
        "FailureReason": update.failure_reason,
        "MetricsBefore": _describe_metrics(update.metrics_before),
        "MetricsAfter": None if update.metrics_after is None else _describe_metrics(update.metrics_after),
    }


def _describe_metrics(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"MetricName": name, "Value": value} for name, value in metrics.items()]


def _check_fields(changes: Mapping[str, Any]) -> None:
    """Refuse what makes no sense for any job."""
    refuse_fields(dict(changes), HONOURED_NOWHERE)
    if not any(changes.get(field) for field in (*CHANGES, *KEPT_ONLY)):
        raise ValidationException(f"There is nothing to change: give one of {', '.join((*CHANGES, *KEPT_ONLY))}")
    if "TrainingImage" in changes and "AlgorithmSource" in changes:
        raise ValidationException("TrainingImage and AlgorithmSource exclude each other: give one of them")
    if "TrainingImage" in changes:
        check_image(changes["TrainingImage"], "TrainingImage")
    if "AlgorithmSource" in changes:
        check_entry_point(changes["AlgorithmSource"]["EntryPoint"], "AlgorithmSource.EntryPoint")
    if changes.get("IfNotHeard") == "Restart":
        return
    if changes.get("HearTimeoutInSeconds") == 0:
        raise ValidationException(
            "HearTimeoutInSeconds 0 leaves nobody the time to hear of the change: give more, or IfNotHeard Restart"
        )
    if changes.get("DeleteModelData"):
        raise ValidationException(
            "DeleteModelData concerns containers that are replaced: give IfNotHeard Restart too, or leave it out"
        )


def _check_changes(context: Context, record: TrainingJobRecord, changes: Mapping[str, Any]) -> None:
    """Refuse what cannot be made of this job."""
    _check_period(record, changes)
    manner, may_restart = manner_of(record.request, changes), changes.get("IfNotHeard") == "Restart"
    changed = changed_request(record.request, changes)
    if len(changed.get("HyperParameters", {})) > MOST_HYPERPARAMETERS:
        raise ValidationException(
            f"HyperParameters would make {len(changed['HyperParameters'])} with those that the job has: at most "
            f"{MOST_HYPERPARAMETERS} are allowed"
        )
    if manner is Manner.REPLACE and not may_restart:
        field = "TrainingImage" if "TrainingImage" in changes else "AlgorithmSource"
        raise ValidationException(f"{_CONSENT} {field} puts other containers in the place of those that train")
    if manner is not Manner.MOVE:
        return
    field = f"ResourceConfig.{next(iter(moved_resources(record.request, changes)))}"
    if not may_restart:
        raise ValidationException(f"{_CONSENT} {field} starts the job again on other machines")
    if "CheckpointConfig" not in record.request:
        raise ValidationException(
            f"{field} starts the job again from its last checkpoint, and training job {record.name} stores none: it "
            "was created without CheckpointConfig. Stop it, and create one that has it"
        )
    check_resources(context, changed["ResourceConfig"])


def _check_period(record: TrainingJobRecord, changes: Mapping[str, Any]) -> None:
    """See that there is something to keep, or to give back, where a change says how long."""
    period_s = changes.get("ResourceConfig", {}).get(keeping.PERIOD)
    if period_s is None or keeping.changes_period_only(record, changes):
        return
    pool, field = record.warm_pool, f"ResourceConfig.{keeping.PERIOD}"
    if record.status.ended and keeping.kept_until(record) is None:
        state = f"its warm pool is {pool.status}" if pool is not None else "it has no warm pool"
        raise ValidationException(f"{field}: nothing is kept of training job {record.name}: {state}")
    if record.status.ended:
        raise ValidationException(f"{field} is all that can be changed of a job that has ended: leave the rest out")
    if period_s and pool is None and not record.is_waiting:
        raise ValidationException(
            f"{field}: training job {record.name} was started without one, so that its machines are not of a warm "
            "pool: give it to CreateTrainingJob"
        )
