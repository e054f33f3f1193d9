"""What CreateTrainingJob checks of its channels that shapes cannot say: modes, and what goes with which. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.registry import Request

Channel = Mapping[str, Any]
STREAMED_ONLY = {"CompressionType": ("Pipe", "Arrow"), "RecordWrapperType": ("Pipe",)}
"""Fields that say how a stream is made, and the modes that have such a stream."""
PIPED = ("Pipe", "Arrow")


def check_channels(request: Request) -> None:
    """Raise ValidationException, naming the field and the remedy, where channels cannot be had as they were asked."""
    channels = request.get("InputDataConfig", [])
    if repeated := _first_repeated(channel["ChannelName"] for channel in channels):
        raise ValidationException(f"InputDataConfig: the channel name {repeated} comes twice")
    default_mode = request["AlgorithmSpecification"].get("TrainingInputMode", "File")
    modes = {channel["ChannelName"]: channel.get("InputMode", default_mode) for channel in channels}
    for index, channel in enumerate(channels):
        path = f"InputDataConfig[{index}]"
        _check_name(channel["ChannelName"], path, modes)
        _check_source(channel, path, modes[channel["ChannelName"]])
        _check_sharing(channel, path, modes[channel["ChannelName"]])


def _check_name(name: str, path: str, modes: Mapping[str, str]) -> None:
    if name in {".", ".."}:
        raise ValidationException(f"{path}.ChannelName {name} cannot be a folder's name")
    pipes_of, _, number = name.rpartition("_")
    if re.fullmatch("[0-9]+", number) and modes.get(pipes_of) in PIPED:
        raise ValidationException(
            f"{path}.ChannelName {name} is also what a pipe of the channel {pipes_of} is called: give it another name"
        )


def _check_source(channel: Channel, path: str, mode: str) -> None:
    source = channel["DataSource"].get("S3DataSource")
    if source is None:
        raise ValidationException(f"{path}.DataSource needs S3DataSource")
    kind, names = source["S3DataType"], source.get("AttributeNames", [])
    at = f"{path}.DataSource.S3DataSource"
    if kind not in {"S3Prefix", "ManifestFile", "AugmentedManifestFile"}:
        raise ValidationException(
            f"{at}.S3DataType {kind} is not supported here: use S3Prefix, ManifestFile or AugmentedManifestFile"
        )
    if kind == "AugmentedManifestFile" and mode != "Pipe":
        raise ValidationException(f"{at}.S3DataType {kind} goes with Pipe mode: set {path}.InputMode to Pipe")
    if (kind == "AugmentedManifestFile") != bool(names):
        raise ValidationException(
            f"{at}.AttributeNames go with S3DataType AugmentedManifestFile, which needs them: they say what of each "
            "line is wanted"
        )
    for field, modes in STREAMED_ONLY.items():
        if mode not in modes and channel.get(field, "None") != "None":
            raise ValidationException(
                f"{path}.{field} {channel[field]} goes with {' and '.join(modes)} mode: in {mode} mode leave it out"
            )
    _check_arrow(channel, path, mode)


def _check_arrow(channel: Channel, path: str, mode: str) -> None:
    if "ArrowConfig" in channel and mode != "Arrow":
        raise ValidationException(f"{path}.ArrowConfig goes with Arrow mode: set {path}.InputMode to Arrow")
    for index, condition in enumerate(channel.get("ArrowConfig", {}).get("Filters", [])):
        if len(condition["Values"]) > 1 and condition["Operator"] not in {"In", "NotIn"}:
            raise ValidationException(
                f"{path}.ArrowConfig.Filters[{index}].Values are several, and {condition['Operator']} compares with "
                "one: use In or NotIn, or a condition for each"
            )


def _check_sharing(channel: Channel, path: str, mode: str) -> None:
    if "ShardBy" not in channel:
        return
    if channel["DataSource"]["S3DataSource"].get("S3DataDistributionType") != "ShardedByS3Key":
        raise ValidationException(
            f"{path}.ShardBy {channel['ShardBy']} says how to share a channel out among the containers, and this one "
            "goes whole to each: set S3DataSource.S3DataDistributionType to ShardedByS3Key, or leave ShardBy out"
        )
    if channel["ShardBy"] == "Record" and mode in {"Pipe", "FastFile"}:
        raise ValidationException(
            f"{path}.ShardBy Record is not supported in {mode} mode, which gives whole objects: use Object, or "
            "File mode"
        )


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
