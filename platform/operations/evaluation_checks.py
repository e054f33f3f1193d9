"""What an EvaluationConfig must say that shapes cannot. Pure but for the cluster's word on instance types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from raymaker.platform.errors import ValidationException
from raymaker.platform.evaluating.evaluation_specs import channel_of, evaluation_data, instance_type_name
from raymaker.platform.evaluating.quality_alarms import STOP
from raymaker.platform.operations.checks import find_instance_type
from raymaker.platform.operations.registry import Context, Request
from raymaker.serving.evaluation.data import kind_of
from raymaker.serving.evaluation.metric_names import known_metrics
from raymaker.serving.notices import is_webhook

_BOUNDS = ("LessThan", "GreaterThan", "Patience")
_REQUEST_TYPES = ("text/csv", "application/jsonlines", "application/json")


def check_evaluation_config(context: Context, training: Mapping[str, Any], config: Request) -> None:
    """Raise ValidationException, naming the field and the remedy. `training` is the request of the job."""
    _check_data(training, config)
    _check_answers(config)
    _check_metrics(config)
    _need_at_most_one(config, "ScoringImage", "ScoringSource")
    for field in ("MetricSource", "ScoringSource"):
        if ".." in config.get(field, {}).get("EntryPoint", "").split("/"):
            raise _refuse(f"{field}.EntryPoint", "leads out of SourceUri: name a file in it")
    for field in ("S3OutputPath", "LabelS3Uri"):
        if "://" not in config.get(field, "://"):
            raise _refuse(field, f"{config[field]!r} has no scheme: use s3://… or file:///…")
    if "InstanceType" in config:
        find_instance_type(context, instance_type_name(training, config), "EvaluationConfig.InstanceType")


def _check_data(training: Mapping[str, Any], config: Request) -> None:
    if ("ChannelName" in config) == ("DataSource" in config):
        raise ValidationException(
            "EvaluationConfig needs exactly one of ChannelName (a channel of InputDataConfig) and DataSource"
        )
    if "ChannelName" in config and channel_of(training, config) is None:
        names = ", ".join(each["ChannelName"] for each in training.get("InputDataConfig", [])) or "none"
        raise _refuse("ChannelName", f"{config['ChannelName']} is no channel of InputDataConfig, which has {names}")
    channel = channel_of(training, config) or config
    source = channel["DataSource"].get("S3DataSource")
    if source is None or source["S3DataType"] not in {"S3Prefix", "ManifestFile"}:
        raise _refuse("DataSource", "needs an S3DataSource with S3DataType S3Prefix or ManifestFile")
    if "://" not in source["S3Uri"]:
        raise _refuse("DataSource.S3DataSource.S3Uri", f"{source['S3Uri']!r} has no scheme: use s3://… or file:///…")
    if channel.get("CompressionType", "None") != "None" or channel.get("RecordWrapperType", "None") != "None":
        raise _refuse("ChannelName", "names a channel that is compressed or wrapped: give plain data with DataSource")
    data = evaluation_data(training, config)
    if kind_of(data.content_type) is None:
        raise _refuse("ContentType", f"{data.content_type} cannot be read: use CSV, JSON lines or Parquet")
    if (data.label is None) == (data.labels_uri is None):
        raise ValidationException(
            "EvaluationConfig needs exactly one of LabelAttribute (a column of the data) and LabelS3Uri (lines of text)"
        )
    if data.tag is not None and data.tag == data.label:
        raise _refuse("TagAttribute", f"{data.tag} is LabelAttribute too: name another column")
    if data.request_type is not None and data.request_type not in _REQUEST_TYPES:
        raise _refuse("RequestContentType", f"{data.request_type} cannot be written: use {', '.join(_REQUEST_TYPES)}")


def _check_answers(config: Request) -> None:
    for field in ("InferenceAttribute", "ProbabilityAttribute"):
        if field in config:
            _check_path(config[field], field)
    misfits = {
        "Regression": ("ProbabilityAttribute", "ProbabilityThreshold", "Classes", "PositiveClass"),
        "MulticlassClassification": ("ProbabilityThreshold", "PositiveClass"),
    }
    for field in misfits.get(config["ProblemType"], ()):
        if field in config:
            raise _refuse(field, f"does not go with ProblemType {config['ProblemType']}: leave it out")
    classes = config.get("Classes", [])
    if len(classes) == 1:
        raise _refuse("Classes", "names one class: name them all")
    if len(set(classes)) != len(classes):
        raise _refuse("Classes", "names a class twice")
    if config["ProblemType"] == "BinaryClassification" and classes:
        if len(classes) != 2:  # noqa: PLR2004 - two classes
            raise _refuse("Classes", f"names {len(classes)} classes, and a binary classifier has 2")
        if config.get("PositiveClass", classes[0]) not in classes:
            raise _refuse("PositiveClass", f"{config['PositiveClass']} is none of Classes")


def _check_path(path: str, field: str) -> None:
    """See that this is a column's number, or a JMESPath expression."""
    if path.removeprefix("-").isdigit():
        return
    try:
        jmespath.compile(path)
    except JMESPathError as error:
        raise _refuse(field, f"is no JMESPath expression and no column's number: {error}") from error


def _check_metrics(config: Request) -> None:
    known, problem = known_metrics(config["ProblemType"]), config["ProblemType"]
    for index, name in enumerate(config.get("Metrics", [])):
        if name not in known and "MetricSource" not in config:
            raise _refuse(f"Metrics[{index}]", f"{name} is no metric of {problem}: {', '.join(known)}")
    for index, alarm in enumerate(config.get("Alarms", [])):
        where, name = f"Alarms[{index}]", alarm["MetricName"]
        told = config.get("Metrics", [*known, *([name] if "MetricSource" in config else [])])
        if name not in told:
            raise _refuse(f"{where}.MetricName", f"{name} is none of the metrics that are told: {', '.join(told)}")
        if sum(field in alarm for field in _BOUNDS) != 1:
            raise _refuse(where, f"needs exactly one of {', '.join(_BOUNDS)}")
        if "MinimumChange" in alarm and "Patience" not in alarm:
            raise _refuse(f"{where}.MinimumChange", "goes with Patience: leave it out")
        topic = alarm.get("NotificationTopic")
        if topic is not None and not is_webhook(topic):
            raise _refuse(f"{where}.NotificationTopic", f"{topic} is no webhook: give its URL, http(s)://…")
        if alarm.get("Action") == STOP and config.get("Schedule") == "OnRequest":
            raise _refuse(f"{where}.Action", f"{STOP} needs evaluations of checkpoints: set Schedule to EachCheckpoint")


def _need_at_most_one(config: Request, *fields: str) -> None:
    if sum(field in config for field in fields) > 1:
        raise ValidationException(f"EvaluationConfig: give only one of {' and '.join(fields)}")


def _refuse(field: str, reason: str) -> ValidationException:
    return ValidationException(f"EvaluationConfig.{field} {reason}")
