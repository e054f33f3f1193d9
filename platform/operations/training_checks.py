"""What CreateTrainingJob checks that shapes cannot say. Pure but for the cluster's word on instance types."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.channel_checks import check_channels
from raymaker.platform.operations.checks import refuse_fields
from raymaker.platform.operations.evaluation_checks import check_evaluation_config
from raymaker.platform.operations.registry import Context, Request
from raymaker.platform.operations.resource_checks import check_resources
from raymaker.platform.pools.keeping import keep_alive_s

_ONE_TYPE = (
    "Ray Train gives all workers of a gang the same resources, so a job has one instance type; give InstanceType and "
    "InstanceCount"
)
_TOLD_ONLY = "DescribeTrainingJob tells it; give InstanceType and InstanceCount"
_NO_KEYS = "objects are not encrypted with keys of a key service; leave it out, or encrypt the store itself"
HONOURED_NOWHERE = {
    "AlgorithmSpecification.AlgorithmName": "there are no algorithm resources; give TrainingImage or AlgorithmSource",
    "AlgorithmSpecification.TrainingImageConfig.TrainingRepositoryAuthConfig": (
        "registry credentials come from the docker configuration of the machine, not from a function"
    ),
    "InputDataConfig.DataSource.FileSystemDataSource": "give S3DataSource; a file:// URI reaches mounted file systems",
    "InputDataConfig.DataSource.DatasetSource": "there are no dataset resources; give S3DataSource",
    "InputDataConfig.DataSource.S3DataSource.InstanceGroupNames": _ONE_TYPE,
    "InputDataConfig.DataSource.S3DataSource.HubAccessConfig": "there is no model hub; give the objects' own URI",
    "OutputDataConfig.KmsKeyId": _NO_KEYS,
    "ResourceConfig.VolumeKmsKeyId": _NO_KEYS,
    "ResourceConfig.InstanceGroups": _ONE_TYPE,
    "ResourceConfig.InstancePreferences": "there is no choice among instance types; give the one InstanceType",
    "ResourceConfig.InstancePlacementConfig": "there are no ultra servers; PlacementStrategy says Pack or Spread",
    "ResourceConfig.SelectedInstanceType": _TOLD_ONLY,
    "ResourceConfig.SelectedInstanceCount": _TOLD_ONLY,
    "ResourceConfig.TrainingPlanArn": "there are no training plans; leave it out",
    "StoppingCondition.MaxPendingTimeInSeconds": "a job waits until there is room; leave it out",
    "TensorBoardOutputConfig": "its files would not be stored; write them to /opt/ml/output/data or checkpoints",
    "RemoteDebugConfig.EnableRemoteDebug": "there is no session manager; leave it out",
    "ServerlessJobConfig": "give AlgorithmSpecification and ResourceConfig",
    "MlflowConfig": "there are no tracking servers; leave it out",
    "ModelPackageConfig": "there are no model packages; leave it out",
}
_OWN_FOLDERS = (
    *(f"/opt/ml/{name}" for name in ("input", "model", "output", "code", "exchange", "sagemaker")),
    *(f"/{name}" for name in ("dev", "etc", "proc", "sys")),
)
ARENA_VARIABLE = "RAYMAKER_EXCHANGE_ARENA_MIB"


def check_training_request(context: Context, request: Request) -> None:
    """Raise ValidationException, naming the field and the remedy, for what cannot be run as it was asked."""
    refuse_fields(request, HONOURED_NOWHERE)
    _check_algorithm(request)
    check_channels(request)
    _check_limits(request)
    _check_checkpoints(request)
    _check_arena(request)
    if "EvaluationConfig" in request:
        check_evaluation_config(context, request, request["EvaluationConfig"])
    check_resources(context, _require(request, "ResourceConfig", "give InstanceType and InstanceCount in it"))
    if request.get("EnableManagedSpotTraining") and keep_alive_s(request):
        raise ValidationException(
            "ResourceConfig.KeepAlivePeriodInSeconds cannot go with EnableManagedSpotTraining: there are no warm pools "
            "of spot instances. Leave one of them out"
        )


def check_image(image: str, path: str) -> None:
    """Raise ValidationException, naming `path`, for what is no image."""
    if not image.strip():
        raise ValidationException(f"{path} is empty: give an image, e.g. name:tag")


def check_entry_point(entry_point: str, path: str) -> None:
    """Raise ValidationException, naming `path`, for an entry point outside the source."""
    if ".." in entry_point.split("/"):
        raise ValidationException(f"{path} {entry_point} leads out of SourceUri: name a file in it")


def _check_algorithm(request: Request) -> None:
    algorithm = _require(request, "AlgorithmSpecification", "give TrainingImage or AlgorithmSource in it")
    if ("TrainingImage" in algorithm) == ("AlgorithmSource" in algorithm):
        raise ValidationException(
            "AlgorithmSpecification needs exactly one of TrainingImage (a container) and AlgorithmSource (plain source)"
        )
    if "TrainingImage" in algorithm:
        check_image(algorithm["TrainingImage"], "AlgorithmSpecification.TrainingImage")
    if "AlgorithmSource" in algorithm:
        source = algorithm["AlgorithmSource"]
        check_entry_point(source["EntryPoint"], "AlgorithmSpecification.AlgorithmSource.EntryPoint")
    for index, definition in enumerate(algorithm.get("MetricDefinitions", [])):
        _check_metric(definition, f"AlgorithmSpecification.MetricDefinitions[{index}].Regex")


def _check_metric(definition: dict[str, str], path: str) -> None:
    try:
        group_count = re.compile(definition["Regex"]).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValidationException(f"{path} of {definition['Name']} is no regular expression: {error}") from error
    if group_count == 0:
        raise ValidationException(f"{path} of {definition['Name']} has no group: put the number in parentheses")


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


def _check_checkpoints(request: Request) -> None:
    """See that checkpoints get a folder of their own in the container."""
    path = request.get("CheckpointConfig", {}).get("LocalPath")
    if not path:
        return
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValidationException(
            f"CheckpointConfig.LocalPath {path!r} is not an absolute path: give one like /opt/ml/checkpoints"
        )
    folder = posixpath.normpath(f"/{path.lstrip('/')}")
    taken = next((own for own in _OWN_FOLDERS if _overlap(folder, own)), None)
    if taken is not None:
        raise ValidationException(
            f"CheckpointConfig.LocalPath {path} overlaps {taken}, which the platform or the system has in every "
            "container: give a folder of its own, e.g. /opt/ml/checkpoints"
        )


def _overlap(one: str, other: str) -> bool:
    return posixpath.commonpath((one, other)) in {one, other}


def _check_arena(request: Request) -> None:
    size = request.get("Environment", {}).get(ARENA_VARIABLE)
    if size is not None and not re.fullmatch(r"[1-9][0-9]{0,6}", size):
        raise ValidationException(
            f"Environment.{ARENA_VARIABLE} is {size!r}: it is the size of the exchange's shared memory in MiB, e.g. 512"
        )


def _require(request: Request, section: str, remedy: str) -> dict[str, Any]:
    if section not in request:
        raise ValidationException(f"{section} is missing: {remedy}")
    found: dict[str, Any] = request[section]
    return found
