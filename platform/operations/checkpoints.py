"""ListCheckpoints, and which checkpoint a model means that names one: what lies in the store at that moment.

`latest` is the one that was written last, `best:<metric>` the one whose evaluation came to the best of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raymaker.actors.checkpoints.stored import StoredCheckpoint, list_checkpoints
from raymaker.actors.errors import StorageError
from raymaker.actors.storage import ObjectStore
from raymaker.platform.cluster.site import site_of
from raymaker.platform.database import training
from raymaker.platform.database.evaluations import list_evaluations
from raymaker.platform.errors import ValidationException
from raymaker.platform.evaluating.evaluations import EvaluationStatus
from raymaker.platform.operations.captured import STORE_RETRY_S
from raymaker.platform.operations.endpoint_configs import find_endpoint_config
from raymaker.platform.operations.models import find_called, find_model
from raymaker.platform.operations.naming import TRAINING_JOB, as_time, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.records import ModelRecord, TrainingJobRecord
from raymaker.platform.specs import (
    JOB_SCHEME,
    LATEST,
    checkpoint_location,
    checkpoint_named_by,
    job_named_by,
    model_containers,
    model_data_uri,
)
from raymaker.serving.evaluation.metric_names import is_more_better

BEST = "best:"
"""Goes before a metric and stands for the checkpoint that is the best by it."""
NAMED_COUNT = 10
"""How many checkpoints an error lists."""

Pins = Mapping[str, str]
"""What models were told, and the same with the name of the checkpoint that is meant."""


@operation("ListCheckpoints")
def list_stored(context: Context, request: Request) -> Answer:
    """Tell of a job's whole checkpoints, newest first, from what lies in the store now."""
    job = find_job(context, request["TrainingJobName"])
    found, metrics = _look(context, job), _metrics(context, job)
    return {
        "Checkpoints": [
            {
                "CheckpointName": each.name,
                "SizeInBytes": each.size_bytes,
                "FileCount": each.file_count,
                "LastModifiedTime": as_time(each.modified_at),
                "Metrics": metrics.get(each.name),
            }
            for each in found
        ]
    }


def pin(context: Context, uri: str) -> str:
    """Name the checkpoint that a `training-job://` URI means now. Raises ValidationException where it is not there."""
    job = find_job(context, job_named_by(uri))
    found = choose_checkpoint(context, job, checkpoint_named_by(uri) or LATEST)
    return f"{JOB_SCHEME}{job.name}/checkpoints/{found.name}"


def choose_checkpoint(context: Context, job: TrainingJobRecord, name: str) -> StoredCheckpoint:
    """Find the checkpoint that a name means now. Raises ValidationException where it is not there."""
    found = {each.name: each for each in _look(context, job)}
    if name not in found and name == LATEST and found:
        return next(iter(found.values()))
    if name not in found and name.startswith(BEST):
        return found[_best(context, job, name.removeprefix(BEST), list(found))]
    if name not in found:
        there_are = f"there are {', '.join(list(found)[:NAMED_COUNT])}" if found else "it has stored none yet"
        raise ValidationException(f"training job {job.name} has no whole checkpoint {name}: {there_are}")
    return found[name]


def _best(context: Context, job: TrainingJobRecord, metric: str, names: list[str]) -> str:
    """Name the checkpoint that is the best by a metric, of those that are there; of equals the latest."""
    known = _metrics(context, job)
    values = {name: known[name][metric] for name in names if metric in known.get(name, {})}
    if not values:
        told = sorted({told for metrics in known.values() for told in metrics})
        others = f"they tell {', '.join(told)}" if told else "none has completed yet"
        raise ValidationException(
            f"training job {job.name} has no best checkpoint by {metric}: of its checkpoints' evaluations {others}"
        )
    return max(values, key=values.__getitem__) if is_more_better(metric) else min(values, key=values.__getitem__)


def _metrics(context: Context, job: TrainingJobRecord) -> dict[str, Mapping[str, float]]:
    """What the latest completed evaluation of each checkpoint came to, by the checkpoint's name."""
    with context.database.reading() as connection:
        completed = list_evaluations(connection, job.name, status=EvaluationStatus.COMPLETED)
    return {record.checkpoint: record.metrics for record in completed if record.checkpoint is not None}


def pin_models(context: Context, config_name: str) -> Pins:
    """Find what checkpoints the models of a configuration mean. Nothing is asked of the store where none does."""
    with context.database.reading() as connection:
        config = find_endpoint_config(context, connection, config_name)
        variants = [*config.request["ProductionVariants"], *config.request.get("ShadowProductionVariants", [])]
        models = [find_model(context, connection, variant["ModelName"]) for variant in variants]
        models += [called for model in models for called in find_called(context, connection, model.request)]
    told = {model_data_uri(container) for model in models for container in model_containers(model.request)}
    return {uri: pin(context, uri) for uri in told if uri is not None and checkpoint_named_by(uri) is not None}


def pinned(model: ModelRecord, pins: Pins) -> ModelRecord:
    """A model whose containers name the checkpoints that are meant."""

    def change(container: Mapping[str, Any]) -> Mapping[str, Any]:
        uri = pins.get(model_data_uri(container) or "")
        kept = {key: value for key, value in container.items() if key != "ModelDataSource"}
        return container if uri is None else {**kept, "ModelDataUrl": uri}

    request = dict(model.request)
    if "PrimaryContainer" in request:
        request["PrimaryContainer"] = change(request["PrimaryContainer"])
    if "Containers" in request:
        request["Containers"] = [change(container) for container in request["Containers"]]
    return dataclasses.replace(model, request=request)


def find_job(context: Context, name: str) -> TrainingJobRecord:
    """Find a training job by its name. Raises ValidationException where there is none."""
    with context.database.reading() as connection:
        job = training.find_training_job(connection, name)
    if job is None:
        raise not_found(context, TRAINING_JOB, name)
    return job


def _look(context: Context, job: TrainingJobRecord) -> list[StoredCheckpoint]:
    store = ObjectStore(dataclasses.replace(site_of(context.settings).store, retry_s=STORE_RETRY_S))
    location = checkpoint_location(job)
    try:
        return list_checkpoints(store, location)
    except StorageError as error:
        raise ValidationException(f"the checkpoints of training job {job.name} cannot be listed: {error}") from error
