"""The parts of a CreateTrainingJob request, made from what a person gives: pure but for looking at paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raymaker.platform.client.errors import WrongArgument
from raymaker.platform.client.names import given, to_uri

SHARDS = ("Object", "Record")
STREAMS = {"pipe": "Pipe", "arrow": "Arrow", "fastfile": "FastFile"}


def make_algorithm(
    source: str | Path | None,
    entry_point: str | None,
    image: str | None,
    base_image: str | None,
    *,
    algorithms: Sequence[Mapping[str, Any]] = (),
    select_by: str | None = None,
) -> dict[str, Any]:
    """Say what is to be trained: an image, or source code, or several of them side by side."""
    if algorithms:
        one = {} if source is None and image is None else make_algorithm(source, entry_point, image, base_image)
        told = {"TrainingInputMode": "File", **one, "Algorithms": [dict(each) for each in algorithms]}
        return {**told, "AlgorithmSelection": "All", **given(SelectionMetric=select_by)}
    if select_by is not None:
        raise WrongArgument("select_by goes with algorithms: name several")
    if (source is None) == (image is None):
        raise WrongArgument("give source (a folder or archive of code) or image, one of them")
    if image is not None:
        if entry_point or base_image:
            raise WrongArgument("entry_point and base_image go with source; an image has its own")
        return {"TrainingImage": image, "TrainingInputMode": "File"}
    if not entry_point:
        raise WrongArgument("entry_point is not given: name the file in source that starts training")
    uri = to_uri("source", str(source))
    folder = Path(str(source)).expanduser()
    if "://" not in str(source) and folder.is_dir() and not (folder / entry_point).is_file():
        raise WrongArgument(f"entry_point is {entry_point}, but there is no such file in {source}")
    code = {"SourceUri": uri, "EntryPoint": entry_point, **given(BaseImage=base_image)}
    return {"AlgorithmSource": code, "TrainingInputMode": "File"}


def make_channels(
    inputs: Mapping[str, str | Path], shard: Mapping[str, str], stream: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Say where the data lies.

    `shard` names inputs of which each container gets a part, by Object or by Record; `stream` those that come while
    it trains, in Pipe, Arrow or FastFile mode.
    """
    for what, named in (("shard", shard), ("stream", stream)):
        if unknown := named.keys() - inputs.keys():
            raise WrongArgument(f"{what} names {min(unknown)}, which is no input: give inputs[{min(unknown)!r}] too")
    return [_make_channel(name, place, shard.get(name), stream.get(name)) for name, place in inputs.items()]


def make_resources(
    instance_type: str,
    *,
    count: int | None,
    least_count: int | None,
    most_count: int | None,
    containers: int,
    placement: str | None,
    keep_alive_s: int | None,
) -> dict[str, Any]:
    """Say what machines the job runs on. `count` None is the most of an elastic job, and 1 of any other."""
    return {
        "InstanceType": instance_type,
        "InstanceCount": count if count is not None else most_count or least_count or 1,
        "VolumeSizeInGB": 1,
        **given(
            MinInstanceCount=least_count,
            MaxInstanceCount=most_count,
            ContainersPerInstance=containers if containers != 1 else None,
            PlacementStrategy=placement.capitalize() if placement else None,
            KeepAlivePeriodInSeconds=keep_alive_s,
        ),
    }


def make_checkpoints(place: str | Path | None, path: str | None) -> dict[str, Any] | None:
    """Say where checkpoints are kept, and where the containers write them; None where none are kept."""
    if place is None:
        if path is not None:
            raise WrongArgument("checkpoint_path goes with checkpoints: say where they are to be kept")
        return None
    return {"S3Uri": to_uri("checkpoints", place, must_exist=False), **given(LocalPath=path)}


def _make_channel(name: str, place: str | Path, shard: str | None, stream: str | None) -> dict[str, Any]:
    by = shard.capitalize() if shard is not None else None
    if by not in {None, *SHARDS}:
        raise WrongArgument(f"shard[{name!r}] is {shard!r}: it is Object or Record")
    mode = STREAMS.get(stream.lower()) if stream is not None else None
    if stream is not None and mode is None:
        raise WrongArgument(f"stream[{name!r}] is {stream!r}: it is Pipe, Arrow or FastFile")
    source = {
        "S3DataType": "S3Prefix",
        "S3Uri": to_uri(f"inputs[{name!r}]", place),
        "S3DataDistributionType": "ShardedByS3Key" if by else "FullyReplicated",
    }
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **given(ShardBy=by, InputMode=mode)}
