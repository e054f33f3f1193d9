"""What CreateTrainingJob checks that shapes cannot say. Pure but for the cluster's word on instance types."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.checks import find_instance_type, refuse_fields
from raymaker.platform.operations.registry import Context, Request

_ONE_MACHINE = "a training job runs on one machine for now; give InstanceType and InstanceCount 1"
_NO_KEYS = "objects are not encrypted with keys of a key service; leave it out, or encrypt the store itself"
_HONOURED_NOWHERE = {
    "AlgorithmSpecification.AlgorithmName": "there are no algorithm resources; give TrainingImage or AlgorithmSource",
    "AlgorithmSpecification.TrainingImageConfig.TrainingRepositoryAuthConfig": (
        "registry credentials come from the docker configuration of the machine, not from a function"
    ),
    "InputDataConfig.DataSource.FileSystemDataSource": "give S3DataSource; a file:// URI reaches mounted file systems",
    "InputDataConfig.DataSource.DatasetSource": "there are no dataset resources; give S3DataSource",
    "InputDataConfig.DataSource.S3DataSource.AttributeNames": "it goes with AugmentedManifestFile only",
    "InputDataConfig.DataSource.S3DataSource.InstanceGroupNames": _ONE_MACHINE,
    "InputDataConfig.DataSource.S3DataSource.HubAccessConfig": "there is no model hub; give the objects' own URI",
    "OutputDataConfig.KmsKeyId": _NO_KEYS,
    "ResourceConfig.VolumeKmsKeyId": _NO_KEYS,
    "ResourceConfig.InstanceGroups": _ONE_MACHINE,
    "ResourceConfig.InstancePreferences": _ONE_MACHINE,
    "ResourceConfig.InstancePlacementConfig": _ONE_MACHINE,
    "ResourceConfig.TrainingPlanArn": "there are no training plans; leave it out",
    "StoppingCondition.MaxPendingTimeInSeconds": "a job waits until there is room; leave it out",
    "TensorBoardOutputConfig": "its files would not be stored; write them to /opt/ml/output/data or checkpoints",
    "RemoteDebugConfig.EnableRemoteDebug": "there is no session manager; leave it out",
    "ServerlessJobConfig": "give AlgorithmSpecification and ResourceConfig",
    "MlflowConfig": "there are no tracking servers; leave it out",
    "ModelPackageConfig": "there are no model packages; leave it out",
}


def check_training_request(context: Context, request: Request) -> None:
    """Raise ValidationException, naming the field and the remedy, for what cannot be run as it was asked."""
    refuse_fields(request, _HONOURED_NOWHERE)
    _check_algorithm(request)
    _check_channels(request)
    _check_limits(request)
    _check_resources(context, request)


def _check_algorithm(request: Request) -> None:
    algorithm = _require(request, "AlgorithmSpecification", "give TrainingImage or AlgorithmSource in it")
    if ("TrainingImage" in algorithm) == ("AlgorithmSource" in algorithm):
        raise ValidationException(
            "AlgorithmSpecification needs exactly one of TrainingImage (a container) and AlgorithmSource (plain source)"
        )
    if "TrainingImage" in algorithm and not algorithm["TrainingImage"].strip():
        raise ValidationException("AlgorithmSpecification.TrainingImage is empty: give an image, e.g. name:tag")
    if "AlgorithmSource" in algorithm:
        _check_entry_point(algorithm["AlgorithmSource"]["EntryPoint"])
    for index, definition in enumerate(algorithm.get("MetricDefinitions", [])):
        _check_metric(definition, f"AlgorithmSpecification.MetricDefinitions[{index}].Regex")


def _check_entry_point(entry_point: str) -> None:
    if ".." in entry_point.split("/"):
        raise ValidationException(
            f"AlgorithmSpecification.AlgorithmSource.EntryPoint {entry_point} leads out of SourceUri: name a file in it"
        )


def _check_metric(definition: dict[str, str], path: str) -> None:
    try:
        group_count = re.compile(definition["Regex"]).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValidationException(f"{path} of {definition['Name']} is no regular expression: {error}") from error
    if group_count == 0:
        raise ValidationException(f"{path} of {definition['Name']} has no group: put the number in parentheses")


def _check_channels(request: Request) -> None:
    channels = request.get("InputDataConfig", [])
    if repeated := _first_repeated(channel["ChannelName"] for channel in channels):
        raise ValidationException(f"InputDataConfig: the channel name {repeated} comes twice")
    default_mode = request["AlgorithmSpecification"].get("TrainingInputMode", "File")
    _check_input_mode(default_mode, "AlgorithmSpecification.TrainingInputMode")
    for index, channel in enumerate(channels):
        _check_channel(channel, f"InputDataConfig[{index}]")


def _check_channel(channel: dict[str, Any], path: str) -> None:
    if channel["ChannelName"] in {".", ".."}:
        raise ValidationException(f"{path}.ChannelName {channel['ChannelName']} cannot be a folder's name")
    _check_input_mode(channel.get("InputMode", "File"), f"{path}.InputMode")
    source = channel["DataSource"].get("S3DataSource")
    if source is None:
        raise ValidationException(f"{path}.DataSource needs S3DataSource")
    if source["S3DataType"] not in {"S3Prefix", "ManifestFile"}:
        raise ValidationException(
            f"{path}.DataSource.S3DataSource.S3DataType {source['S3DataType']} is not supported yet: "
            "use S3Prefix or ManifestFile"
        )
    for field in ("CompressionType", "RecordWrapperType"):
        if channel.get(field, "None") != "None":
            raise ValidationException(f"{path}.{field} {channel[field]} goes with Pipe mode: in File mode leave it out")


def _check_input_mode(mode: str, path: str) -> None:
    if mode != "File":
        raise ValidationException(f"{path} {mode} is not supported yet: use File")


def _check_limits(request: Request) -> None:
    """See that the output has a place, and that time limits go together."""
    for path in ("OutputDataConfig.S3OutputPath", "CheckpointConfig.S3Uri"):
        section, field = path.split(".")
        if section in request and "://" not in request[section][field]:
            raise ValidationException(f"{path} {request[section][field]!r} has no scheme: use s3://… or file:///…")
    limits = request.get("StoppingCondition", {})
    runtime_s, wait_s = limits.get("MaxRuntimeInSeconds"), limits.get("MaxWaitTimeInSeconds")
    if wait_s is not None and runtime_s is not None and wait_s < runtime_s:
        raise ValidationException(
            f"StoppingCondition.MaxWaitTimeInSeconds {wait_s} is less than MaxRuntimeInSeconds {runtime_s}"
        )


def _check_resources(context: Context, request: Request) -> None:
    resources = _require(request, "ResourceConfig", "give InstanceType and InstanceCount in it")
    if "InstanceType" not in resources:
        raise ValidationException("ResourceConfig.InstanceType is missing: give an instance type, e.g. ml.m5.large")
    if (count := resources.get("InstanceCount", 1)) != 1:
        raise ValidationException(
            f"ResourceConfig.InstanceCount {count} is not yet supported: a training job runs on 1 instance for now"
        )
    find_instance_type(context, resources["InstanceType"], "ResourceConfig.InstanceType")


def _require(request: Request, section: str, remedy: str) -> dict[str, Any]:
    if section not in request:
        raise ValidationException(f"{section} is missing: {remedy}")
    found: dict[str, Any] = request[section]
    return found


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
