"""ListCheckpoints, and which checkpoint a model means that names one: what lies in the store at that moment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raymaker.actors.checkpoints.stored import StoredCheckpoint, list_checkpoints
from raymaker.actors.errors import StorageError
from raymaker.actors.storage import ObjectStore
from raymaker.platform.cluster.site import site_of
from raymaker.platform.database import training
from raymaker.platform.errors import ValidationException
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

NAMED_COUNT = 10
"""How many checkpoints an error lists."""

Pins = Mapping[str, str]
"""What models were told, and the same with the name of the checkpoint that is meant."""


@operation("ListCheckpoints")
def list_stored(context: Context, request: Request) -> Answer:
    """Tell of a job's whole checkpoints, newest first, from what lies in the store now."""
    found = _look(context, _find_job(context, request["TrainingJobName"]))
    return {
        "Checkpoints": [
            {
                "CheckpointName": each.name,
                "SizeInBytes": each.size_bytes,
                "FileCount": each.file_count,
                "LastModifiedTime": as_time(each.modified_at),
            }
            for each in found
        ]
    }


def pin(context: Context, uri: str) -> str:
    """Name the checkpoint that a `training-job://` URI means now. Raises ValidationException where it is not there."""
    name, job = checkpoint_named_by(uri), _find_job(context, job_named_by(uri))
    found = [each.name for each in _look(context, job)]
    if name == LATEST and found and LATEST not in found:
        name = found[0]
    if name not in found:
        there_are = f"there are {', '.join(found[:NAMED_COUNT])}" if found else "it has stored none yet"
        raise ValidationException(f"training job {job.name} has no whole checkpoint {name}: {there_are}")
    return f"{JOB_SCHEME}{job.name}/checkpoints/{name}"


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


def _find_job(context: Context, name: str) -> TrainingJobRecord:
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
