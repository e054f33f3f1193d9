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
    ],
)
def test_what_file_mode_cannot_give_is_refused_by_name(
    store: ObjectStore, tmp_path: Path, change: dict[str, str], field: str
) -> None:
    channel = dataclasses.replace(ChannelSpec("train", str(tmp_path)), **change)
    with pytest.raises(UnsupportedError, match=f"channel train: {field} is not supported"):
        fetch_channel(store, channel, tmp_path / "in")
