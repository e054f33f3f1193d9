"""What CreateTransformJob checks that shapes cannot say. Pure but for the cluster's word on instance types."""

from __future__ import annotations

from typing import Any

from raymaker.platform.capacity import describe, describe_nodes
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.checks import find_instance_type, refuse_fields, room_for
from raymaker.platform.operations.registry import Context, Request
from raymaker.serving.transform.paths import PathSyntaxError, parse_path
from raymaker.serving.transform.processing import Format, format_of
from raymaker.serving.transform.spec import HELD_MIB

_NO_KEYS = "objects are not encrypted with keys of a key service; leave it out, or encrypt the store itself"
_HONOURED_NOWHERE = {
    "TransformOutput.KmsKeyId": _NO_KEYS,
    "TransformResources.VolumeKmsKeyId": _NO_KEYS,
    "TransformResources.TransformAmiVersion": "instances have the software of their machines; leave it out",
    "DataCaptureConfig": "inputs and outputs of a transform job are objects already; leave it out",
    "StoppingCondition.MaxWaitTimeInSeconds": "there are no spot instances; give MaxRuntimeInSeconds",
    "StoppingCondition.MaxPendingTimeInSeconds": "a job waits until there is room; leave it out",
}
_SPLIT_TYPES = ("None", "Line", "RecordIO")
_DATA_TYPES = ("S3Prefix", "ManifestFile")
_LOOKED_INTO = "text/csv, application/json or application/jsonlines"
_OWN_VARIABLES = {
    "SAGEMAKER_BATCH",
    "SAGEMAKER_BATCH_STRATEGY",
    "SAGEMAKER_MAX_PAYLOAD_IN_MB",
    "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
}


def check_transform_request(context: Context, request: Request) -> None:
    """Raise ValidationException, naming the field and the remedy, for what cannot be run as it was asked."""
    refuse_fields(request, _HONOURED_NOWHERE)
    _check_input(request["TransformInput"])
    _check_output(request)
    _check_limits(request)
    _check_processing(request)
    _check_resources(context, request["TransformResources"])


def _check_input(source: Request) -> None:
    objects = source["DataSource"]["S3DataSource"]
    _check_choice("TransformInput.DataSource.S3DataSource.S3DataType", objects["S3DataType"], _DATA_TYPES)
    _check_choice("TransformInput.SplitType", source.get("SplitType", "None"), _SPLIT_TYPES)
    _check_text("TransformInput.ContentType", source.get("ContentType"))


def _check_output(request: Request) -> None:
    output, source = request["TransformOutput"], request["TransformInput"]["DataSource"]["S3DataSource"]
    _check_text("TransformOutput.Accept", output.get("Accept"))
    for path, uri in (
        ("TransformOutput.S3OutputPath", output["S3OutputPath"]),
        ("TransformInput.DataSource.S3DataSource.S3Uri", source["S3Uri"]),
    ):
        if "://" not in uri:
            raise ValidationException(f"{path} {uri!r} has no scheme: use s3://… or file:///…")
    if source["S3DataType"] == "S3Prefix" and _lies_below(output["S3OutputPath"], source["S3Uri"]):
        raise ValidationException(
            f"TransformOutput.S3OutputPath {output['S3OutputPath']} lies below the S3Uri {source['S3Uri']}, so that "
            "outputs would be taken for input: choose another place, or end S3Uri with / where it names a folder"
        )


def _lies_below(output: str, source: str) -> bool:
    """Tell whether an output would be listed as input: by folder, or on S3 by the beginning of its key."""
    beginning = f"{source.rstrip('/')}/" if source.startswith("file:") else source
    return f"{output.rstrip('/')}/".startswith(beginning)


def _check_limits(request: Request) -> None:
    payload_mib, concurrency = request.get("MaxPayloadInMB"), request.get("MaxConcurrentTransforms")
    if (payload_mib or 0) > HELD_MIB:
        raise ValidationException(f"MaxPayloadInMB {payload_mib} is too much: {HELD_MIB} is the most; 0 means no limit")
    if (concurrency or 0) * (payload_mib or 1) > HELD_MIB:
        raise ValidationException(
            f"MaxConcurrentTransforms {concurrency} times MaxPayloadInMB {payload_mib or 1} is "
            f"{(concurrency or 0) * (payload_mib or 1)} MB: {HELD_MIB} is the most that may be under way at once"
        )
    for name in request.get("Environment", {}):
        if name in _OWN_VARIABLES:
            raise ValidationException(f"Environment.{name} is set by the platform: give the request's own field")


def _check_processing(request: Request) -> None:
    processing, source = request.get("DataProcessing", {}), request["TransformInput"]
    paths = {}
    for field in ("InputFilter", "OutputFilter"):
        try:
            paths[field] = parse_path(processing.get(field, "$"))
        except PathSyntaxError as error:
            raise ValidationException(f"DataProcessing.{field}: {error}") from error
    joins = processing.get("JoinSource", "None") == "Input"
    content_type, split_type = source.get("ContentType"), source.get("SplitType", "None")
    accept = request["TransformOutput"].get("Accept", content_type)
    sent, answered = format_of(content_type, split_type), format_of(accept, split_type)
    if split_type == "RecordIO":
        sent = answered = None
    if (joins or not paths["InputFilter"].is_all) and sent is None:
        raise _cannot_look_into("TransformInput.ContentType", content_type, split_type)
    if (joins or not paths["OutputFilter"].is_all) and answered is None:
        raise _cannot_look_into("TransformOutput.Accept", accept, split_type)
    if joins and (sent is Format.CSV) != (answered is Format.CSV):
        raise ValidationException(
            f"DataProcessing.JoinSource Input joins records of one format: ContentType is {content_type}, "
            f"Accept {accept}"
        )


def _cannot_look_into(path: str, media_type: str | None, split_type: str) -> ValidationException:
    return ValidationException(
        f"DataProcessing looks into records, which {path} {media_type} with SplitType {split_type} does not allow: it "
        f"must be {_LOOKED_INTO}, split by Line or not at all"
    )


def _check_resources(context: Context, resources: Request) -> None:
    path = "TransformResources.InstanceType"
    instance_type = find_instance_type(context, resources["InstanceType"], path)
    count, fit_count = resources["InstanceCount"], room_for(context, instance_type.resources)
    if count > fit_count:
        told = describe_nodes(context.cluster.nodes())
        raise ValidationException(
            f"TransformResources.InstanceCount {count} is more than this cluster could hold: {fit_count} of "
            f"{instance_type.name} ({describe(instance_type.resources)} each) fit on {told}. Ask for "
            "fewer, choose a smaller instance type, or add nodes"
        )


def _check_choice(path: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValidationException(f"{path} {value} is not supported: use {', '.join(known[:-1])} or {known[-1]}")


def _check_text(path: str, value: Any) -> None:
    if value is not None and not (value.isascii() and value.isprintable()):
        raise ValidationException(f"{path} {value!r} cannot be sent as an HTTP header: give a media type")
