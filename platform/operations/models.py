"""Models: create, describe, list, delete. A model is one scoring container and its data, or several that work together.

How several do is read and drawn by `inference_graphs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from raymaker.platform.database import hosting, training
from raymaker.platform.database.tags import put_tags
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.checks import read_listing, read_tags, refuse_fields, without_tags
from raymaker.platform.operations.inference_graphs import (
    MULTI_MODEL,
    check_expanded,
    describe_drawing,
    models_called,
    read_graph,
    why_not_a_step,
)
from raymaker.platform.operations.naming import MODEL, TRAINING_JOB, already_exists, as_time, make_arn, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.records import ModelRecord, TrainingJobRecord
from raymaker.platform.specs import (
    JOB_SCHEME,
    additional_sources,
    checkpoint_location,
    checkpoint_named_by,
    is_plain,
    job_named_by,
    model_containers,
    model_data_uri,
)

_HONOURED_NOWHERE = {
    "ImageConfig.RepositoryAuthConfig": "registry credentials come from the docker configuration of the machine",
    "ModelPackageName": "there are no model packages; give Image and ModelDataUrl",
    "InferenceSpecificationName": "there are no model packages; give Image and ModelDataUrl",
}
_HONOURED_IN_NO_SOURCE = {
    "HubAccessConfig": "there is no model hub; give the objects' own URI",
    "ManifestS3Uri": "give S3Uri",
    "ETag": "objects are not pinned; leave it out",
    "ManifestEtag": "objects are not pinned; leave it out",
}
_FORMS = {("S3Prefix", "None"), ("S3Prefix", "Gzip"), ("S3Object", "Gzip")}


@operation("CreateModel")
def create_model(context: Context, request: Request) -> Answer:
    """Accept a model. Nothing is read from its data before an endpoint uses it."""
    containers = _find_containers(request)
    tags = read_tags(request)
    record = new_model(context, request["ModelName"], without_tags(request))
    with context.database.transaction() as connection:
        for container in containers:
            _check_origin(context, connection, container)
        called = find_called(context, connection, request)
        check_expanded(request, {each.name: each.request for each in called if not is_plain(each.request)})
        if not hosting.insert_model(connection, record):
            raise already_exists(context, MODEL, record.name)
        put_tags(connection, record.arn, tags)
    return {"ModelArn": record.arn}


@operation("DescribeModel")
def describe_model(context: Context, request: Request) -> Answer:
    """Tell what a model was created with, and draw how several containers work together."""
    with context.database.reading() as connection:
        record = find_model(context, connection, request["ModelName"])
    graph = read_graph(record.request)
    drawing = describe_drawing(graph) if graph is not None else {}
    return {**record.request, "ModelName": record.name, **_name_arn_and_time(record), **drawing}


@operation("ListModels")
def list_models(context: Context, request: Request) -> Answer:
    """Tell of models, a page at a time."""
    with context.database.reading() as connection:
        records, token = hosting.list_models(connection, read_listing(request, default_order="Descending"))
    return {
        "Models": [{"ModelName": record.name, **_name_arn_and_time(record)} for record in records],
        "NextToken": token,
    }


@operation("DeleteModel")
def delete_model(context: Context, request: Request) -> Answer:
    """Forget a model. Its data stays, and endpoints that run it go on."""
    with context.database.transaction() as connection:
        hosting.delete_model(connection, find_model(context, connection, request["ModelName"]))
    return {}


def new_model(context: Context, name: str, request: Request) -> ModelRecord:
    """Make the record of a model that is accepted now."""
    return ModelRecord(name, make_arn(context, MODEL, name), context.account, request, context.now())


def find_model(context: Context, connection: Connection, name: str) -> ModelRecord:
    """Read a model. Raises ValidationException where there is none."""
    record = hosting.find_model(connection, name)
    if record is None:
        raise not_found(context, MODEL, name)
    return record


def find_called(context: Context, connection: Connection, request: Mapping[str, Any]) -> list[ModelRecord]:
    """Find the models that a model's graph calls. Raises ValidationException for one that a step cannot call."""
    called = [find_model(context, connection, name) for name in models_called(request)]
    for model in called:
        if (reason := why_not_a_step(model.request)) is not None:
            raise ValidationException(f"InferenceGraph calls the model {model.name}, {reason}")
    return called


def find_origins(connection: Connection, request: Mapping[str, Any]) -> dict[str, TrainingJobRecord]:
    """Find the training jobs that stored what a model's containers load, by the URIs that these were told."""
    found = {uri: _find_origin(connection, uri) for container in model_containers(request) for uri in _uris(container)}
    return {uri: job for uri, job in found.items() if job is not None}


def _uris(container: Mapping[str, Any]) -> list[str]:
    own = model_data_uri(container)
    return [*([own] if own is not None else []), *additional_sources(container).values()]


def _find_origin(connection: Connection, uri: str) -> TrainingJobRecord | None:
    if uri.startswith(JOB_SCHEME):
        return training.find_training_job(connection, job_named_by(uri))
    return training.find_training_job_by_model(connection, uri)


def _find_containers(request: Request) -> list[Mapping[str, Any]]:
    """Take out the containers, checked, alone and together. Raises ValidationException that names the field."""
    graph = read_graph(request)
    if graph is None:
        return [_find_only_container(request)]
    if "PrimaryContainer" in request:
        raise ValidationException("PrimaryContainer goes with no Containers: put it in front of them, or leave it out")
    containers = model_containers(request)
    for number, container in enumerate(containers):
        path = f"Containers[{number}]"
        _check_container(container, path)
        if container.get("Mode") == MULTI_MODEL:
            raise ValidationException(f"{path}.Mode MultiModel goes with a container that is alone: leave it out")
    return containers


def _find_only_container(request: Request) -> Mapping[str, Any]:
    if request.get("InferenceExecutionConfig", {}).get("Mode", "Serial") != "Serial":
        raise ValidationException("InferenceExecutionConfig.Mode Direct goes with several containers: leave it out")
    containers = model_containers(request)
    if not containers:
        raise ValidationException("PrimaryContainer is missing: give Image, ModelDataUrl or both in it")
    if len(containers) > 1:
        raise ValidationException("PrimaryContainer goes with no Containers: put all into Containers")
    path = "PrimaryContainer" if "PrimaryContainer" in request else "Containers[0]"
    _check_container(containers[0], path)
    return containers[0]


def _check_container(container: Mapping[str, Any], path: str) -> None:
    refuse_fields({path: container}, {f"{path}.{field}": reason for field, reason in _HONOURED_NOWHERE.items()})
    if container.get("Mode") == MULTI_MODEL:
        _check_multi_model(container, path)
    elif "MultiModelConfig" in container:
        raise ValidationException(f"{path}.MultiModelConfig goes with Mode MultiModel: leave it out, or set the mode")
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        raise ValidationException(f"{path} has both ModelDataUrl and ModelDataSource: give one")
    if "ModelDataSource" in container:
        _check_data_source(container["ModelDataSource"].get("S3DataSource"), f"{path}.ModelDataSource")
    if "AdditionalModelDataSources" in container:
        _check_additional(container, f"{path}.AdditionalModelDataSources")
    if "Image" not in container and model_data_uri(container) is None:
        raise ValidationException(f"{path} needs Image, or the ModelDataUrl of a training job whose image serves it")


def _check_multi_model(container: Mapping[str, Any], path: str) -> None:
    if "Image" not in container:
        raise ValidationException(f"{path}.Image is missing: with Mode MultiModel no training job gives it")
    uri = container.get("ModelDataUrl", "")
    if not uri or uri.startswith(JOB_SCHEME):
        raise ValidationException(f"{path}.ModelDataUrl is missing: with Mode MultiModel all models lie below it")


def _check_additional(container: Mapping[str, Any], path: str) -> None:
    if container.get("Mode") == MULTI_MODEL:
        raise ValidationException(f"{path} goes with one model and more, not with Mode MultiModel: leave it out")
    seen: set[str] = set()
    for number, source in enumerate(container["AdditionalModelDataSources"]):
        name = source["ChannelName"]
        if name in seen:
            raise ValidationException(f"{path}[{number}].ChannelName {name} comes twice: give each a name of its own")
        if name in {".", ".."}:
            raise ValidationException(f"{path}[{number}].ChannelName {name} cannot name a folder: choose another")
        seen.add(name)
        _check_data_source(source["S3DataSource"], f"{path}[{number}]")
        if checkpoint_named_by(source["S3DataSource"]["S3Uri"]) is not None:
            raise ValidationException(f"{path}[{number}]: a checkpoint is a model of its own: give it as ModelDataUrl")


def _check_data_source(objects: Mapping[str, Any] | None, path: str) -> None:
    if objects is None:
        raise ValidationException(f"{path} needs S3DataSource")
    inner = f"{path}.S3DataSource"
    for field, reason in _HONOURED_IN_NO_SOURCE.items():
        if objects.get(field):
            raise ValidationException(f"{inner}.{field} is not supported here: {reason}")
    form = (objects["S3DataType"], objects["CompressionType"])
    if form not in _FORMS:
        raise ValidationException(
            f"{inner}: S3DataType {form[0]} with CompressionType {form[1]} is not supported: "
            "use S3Prefix with None for a folder of files, S3Object with Gzip for an archive"
        )


def _check_origin(context: Context, connection: Connection, container: Mapping[str, Any]) -> None:
    """See that the job a model is said to come from is there, and that some job gives the image where none is named."""
    origins = {uri: _find_origin(connection, uri) for uri in _uris(container)}
    for each, job in origins.items():
        if each.startswith(JOB_SCHEME) and job is None:
            raise not_found(context, TRAINING_JOB, job_named_by(each))
        if job is not None and checkpoint_named_by(each) is not None:
            checkpoint_location(job)
    uri = model_data_uri(container)
    if "Image" not in container and origins.get(uri or "") is None:
        raise ValidationException(
            f"Image is missing, and no training job known here stored {uri}, whose image could be used: name an Image"
        )


def _name_arn_and_time(record: ModelRecord) -> dict[str, Any]:
    return {"ModelArn": record.arn, "CreationTime": as_time(record.created_at)}
