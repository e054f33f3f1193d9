"""File mode: names, manifests, refusals, on local folders."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from raymaker.actors.channels.file import fetch_channel, parse_manifest
from raymaker.actors.errors import ObjectNotFound, StorageError, UnsupportedError
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(StoreConfig(retry_s=0))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.csv").write_text("1,2\n")
    (folder / "sub" / "b.csv").write_text("3,4\n")
    return folder


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_with_its_subfolders_and_progress_ends_at_the_total(
    store: ObjectStore, data: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    channel = ChannelSpec("train", data.as_uri())
    fetch_channel(store, channel, tmp_path / "in", lambda done, total: seen.append((done, total)))
    assert files(tmp_path / "in") == {"a.csv": "1,2\n", "sub/b.csv": "3,4\n"}
    assert seen[0] == (0, 8)
    assert seen[-1] == (8, 8)


def test_a_single_object_comes_under_its_own_name(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    fetch_channel(store, ChannelSpec("train", f"{data}/a.csv"), tmp_path / "in")
    assert files(tmp_path / "in") == {"a.csv": "1,2\n"}


def test_what_the_container_writes_never_reaches_the_source(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    fetch_channel(store, ChannelSpec("train", f"{data}/a.csv"), tmp_path / "in")
    (tmp_path / "in" / "a.csv").write_text("changed")
    assert (data / "a.csv").read_text() == "1,2\n"


def test_fetching_again_after_an_interruption_gives_the_same(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    channel = ChannelSpec("train", str(data))
    fetch_channel(store, channel, tmp_path / "in")
    fetch_channel(store, channel, tmp_path / "in")
    assert files(tmp_path / "in") == {"a.csv": "1,2\n", "sub/b.csv": "3,4\n"}


def test_a_manifest_brings_the_objects_it_names_and_no_others(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.manifest"
    manifest.write_text(json.dumps([{"prefix": f"{data.as_uri()}/"}, "sub/b.csv"]))
    fetch_channel(store, ChannelSpec("train", str(manifest), data_type="ManifestFile"), tmp_path / "in")
    assert files(tmp_path / "in") == {"sub/b.csv": "3,4\n"}


def test_a_manifest_with_a_missing_object_names_it(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.manifest"
    manifest.write_text(json.dumps([{"prefix": f"{data.as_uri()}/"}, "none.csv"]))
    with pytest.raises(ObjectNotFound, match="channel train: .*none.csv"):
        fetch_channel(store, ChannelSpec("train", str(manifest), data_type="ManifestFile"), tmp_path / "in")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_a_manifest_cannot_name_a_way_out_of_the_folder(
    store: ObjectStore, data: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "evil").touch()
    manifest = tmp_path / "list.manifest"
    manifest.write_text(json.dumps([{"prefix": f"{data.as_uri()}/"}, name]))
    with pytest.raises(StorageError, match="channel train"):
        fetch_channel(store, ChannelSpec("train", str(manifest), data_type="ManifestFile"), tmp_path / "in")


@pytest.mark.parametrize("text", ["", "{}", "[]", '["x"]', '[{"prefix": 3}, "x"]', '[{"prefix": "p"}, 3]', "[" * 10**5])
def test_what_is_no_manifest_is_told_with_an_example(text: str) -> None:
    with pytest.raises(StorageError, match="is no manifest"):
        parse_manifest(text.encode(), "s3://b/m")


def test_a_manifest_without_names_is_empty() -> None:
    with pytest.raises(ObjectNotFound, match="names no objects"):
        parse_manifest(b'[{"prefix": "s3://b/"}]', "s3://b/m")


def test_gzip_objects_are_unpacked_and_lose_their_suffix(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n") + gzip.compress(b"3,4\n"))
    fetch_channel(store, ChannelSpec("train", f"{tmp_path}/data", compression="Gzip"), tmp_path / "in")
    assert files(tmp_path / "in") == {"a.csv": "1,2\n3,4\n"}


def test_an_object_that_is_not_gzip_is_named(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="channel train: .*a.csv is no gzip file"):
        fetch_channel(store, ChannelSpec("train", f"{data}/a.csv", compression="Gzip"), tmp_path / "in")
    assert files(tmp_path / "in") == {}


def test_two_objects_for_one_name_are_refused(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a", "a.gz"):
        (tmp_path / "data" / name).write_bytes(gzip.compress(b"x"))
    with pytest.raises(StorageError, match="would have the same name"):
        fetch_channel(store, ChannelSpec("train", f"{tmp_path}/data", compression="Gzip"), tmp_path / "in")


def test_a_missing_source_names_channel_and_uri(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match=r"channel train: .*file:///nowhere/x"):
        fetch_channel(store, ChannelSpec("train", "file:///nowhere/x"), tmp_path / "in")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input_mode": "Pipe"}, "InputMode Pipe"),
        ({"input_mode": "FastFile"}, "InputMode FastFile"),
        ({"data_type": "AugmentedManifestFile"}, "S3DataType AugmentedManifestFile"),
        ({"record_wrapper": "RecordIO"}, "RecordWrapperType RecordIO"),
        ({"distribution": "Odd"}, "S3DataDistributionType Odd"),
        ({"compression": "Zstd"}, "CompressionType Zstd"),
        ({"shard_by": "Byte"}, "ShardBy Byte"),
    ],
)
def test_what_file_mode_cannot_give_is_refused_by_name(
    store: ObjectStore, tmp_path: Path, change: dict[str, str], field: str
) -> None:
    channel = dataclasses.replace(ChannelSpec("train", str(tmp_path)), **change)
    with pytest.raises(UnsupportedError, match=f"channel train: {field} is not supported"):
        fetch_channel(store, channel, tmp_path / "in")


def shares(store: ObjectStore, channel: ChannelSpec, tmp_path: Path, shard_count: int) -> list[dict[str, str]]:
    """What each of `shard_count` containers finds in its folder."""
    folders = [tmp_path / f"in-{index}" for index in range(shard_count)]
    for index, folder in enumerate(folders):
        fetch_channel(store, channel, folder, shard_index=index, shard_count=shard_count)
    return [files(folder) for folder in folders]


def test_sharded_by_key_every_container_gets_other_objects_and_all_come_somewhere(
    store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    sizes = {"a.csv": 40, "b.csv": 30, "sub/c.csv": 20, "sub/d.csv": 10}
    for name, size in sizes.items():
        (tmp_path / "data" / name).write_text("x" * size)
    channel = ChannelSpec("train", str(tmp_path / "data"), distribution="ShardedByS3Key")
    assert [sorted(share) for share in shares(store, channel, tmp_path, 2)] == [
        ["a.csv", "sub/d.csv"],
        ["b.csv", "sub/c.csv"],
    ]


def test_a_share_tells_progress_of_its_own_bytes(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    (data / "a.csv").write_text("x" * 100)
    seen: list[tuple[int, int]] = []
    fetch_channel(
        store,
        ChannelSpec("train", str(data), distribution="ShardedByS3Key"),
        tmp_path / "in",
        lambda done, total: seen.append((done, total)),
        shard_index=0,
        shard_count=2,
    )
    assert (seen[0], seen[-1]) == ((0, 100), (100, 100))


@pytest.mark.parametrize("shard_by", ["Object", "Record"])
def test_fully_replicated_every_container_gets_all(
    store: ObjectStore, data: Path, tmp_path: Path, shard_by: str
) -> None:
    whole = {"a.csv": "1,2\n", "sub/b.csv": "3,4\n"}
    assert shares(store, ChannelSpec("train", str(data), shard_by=shard_by), tmp_path, 2) == [whole, whole]


@pytest.mark.parametrize("shard_by", ["Object", "Record"])
def test_a_lone_container_gets_every_object_as_it_is(store: ObjectStore, tmp_path: Path, shard_by: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "picture.png").write_text("no records")
    channel = ChannelSpec("train", str(tmp_path / "data"), distribution="ShardedByS3Key", shard_by=shard_by)
    assert shares(store, channel, tmp_path, 1) == [{"picture.png": "no records"}]


def test_more_containers_than_objects_are_told_with_both_numbers_and_what_to_do(
    store: ObjectStore, data: Path, tmp_path: Path
) -> None:
    channel = ChannelSpec("train", str(data), distribution="ShardedByS3Key")
    expected = (
        rf"channel train: 3 containers are more than there are objects at {data} \(2\), .*: use no more containers .*"
        r"\(InstanceCount times ContainersPerInstance\), or ShardBy Record"
    )
    with pytest.raises(UnsupportedError, match=expected):
        fetch_channel(store, channel, tmp_path / "in", shard_index=0, shard_count=3)
    assert files(tmp_path / "in") == {}


def test_more_containers_than_records_are_told_with_both_numbers_and_what_to_do(
    store: ObjectStore, data: Path, tmp_path: Path
) -> None:
    channel = ChannelSpec("train", str(data), distribution="ShardedByS3Key", shard_by="Record")
    expected = r"channel train: 3 containers are more than there are records at .* \(2\): use no more .*FullyReplicated"
    with pytest.raises(UnsupportedError, match=expected):
        fetch_channel(store, channel, tmp_path / "in", shard_index=0, shard_count=3)


def test_by_record_containers_share_every_file_and_odd_records_are_spread(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "_SUCCESS").touch()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "data" / name).write_text("x\n1\n2\n3\n")
    (tmp_path / "data" / "c.jsonl").write_text("1\n")
    channel = ChannelSpec("train", str(tmp_path / "data"), distribution="ShardedByS3Key", shard_by="Record")
    assert shares(store, channel, tmp_path, 2) == [
        {"a.csv": "x\n1\n2\n", "b.csv": "x\n1\n", "c.jsonl": "1\n"},
        {"a.csv": "x\n3\n", "b.csv": "x\n2\n3\n"},
    ]


def test_a_share_of_records_tells_progress_up_to_the_bytes_of_all_objects(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x\n" + "1\n" * 99)
    seen: list[tuple[int, int]] = []
    channel = ChannelSpec("train", f"{tmp_path}/data.csv", distribution="ShardedByS3Key", shard_by="Record")
    fetch_channel(
        store, channel, tmp_path / "in", lambda done, total: seen.append((done, total)), shard_index=1, shard_count=2
    )
    assert (seen[0], seen[-1]) == ((0, 200), (200, 200))


def test_a_format_without_records_is_refused_before_anything_is_read(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text('x\n"never closed')
    (tmp_path / "data" / "b.png").write_text("x")
    channel = ChannelSpec("train", str(tmp_path / "data"), distribution="ShardedByS3Key", shard_by="Record")
    with pytest.raises(UnsupportedError, match=r"channel train: .*b.png cannot be split by ShardBy Record"):
        fetch_channel(store, channel, tmp_path / "in", shard_index=0, shard_count=2)


@pytest.mark.parametrize(
    ("shard_by", "expected"),
    [
        ("Object", [{"a.csv": "1,2\n"}, {"sub/b.csv": "3,4\n"}]),
        ("Record", [{"sub/b.csv": "3,4\n"}, {"a.csv": "1,2\n"}]),
    ],
)
def test_what_a_manifest_names_is_shared_out_too(
    store: ObjectStore, data: Path, tmp_path: Path, shard_by: str, expected: list[dict[str, str]]
) -> None:
    (data / "left-out.csv").touch()
    manifest = tmp_path / "list.manifest"
    manifest.write_text(json.dumps([{"prefix": f"{data.as_uri()}/"}, "sub/b.csv", "a.csv"]))
    channel = ChannelSpec(
        "train", str(manifest), data_type="ManifestFile", distribution="ShardedByS3Key", shard_by=shard_by
    )
    assert shares(store, channel, tmp_path, 2) == expected


def test_gzip_objects_are_shared_out_unpacked(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(b"x\n1\n2\n"))
    channel = ChannelSpec(
        "train", f"{tmp_path}/data.csv.gz", distribution="ShardedByS3Key", shard_by="Record", compression="Gzip"
    )
    assert shares(store, channel, tmp_path, 2) == [{"data.csv": "x\n1\n"}, {"data.csv": "x\n2\n"}]
