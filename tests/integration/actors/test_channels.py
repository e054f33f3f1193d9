"""Training channels from S3 over the wire."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from raymaker.actors.channels.file import fetch_channel
from raymaker.actors.errors import ObjectNotFound, StorageError
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig
from support.s3 import ObjectStore as S3Server


@pytest.fixture
def store(s3: S3Server) -> ObjectStore:
    return ObjectStore(StoreConfig(s3.endpoint_url, s3.access_key, s3.secret_key, s3.region, retry_s=5))


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


def put(s3: S3Server, bucket: str, **objects: bytes) -> None:
    client = s3.client()
    for key, body in objects.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)
    client.close()


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_prefix_of_many_objects_comes_complete(store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path) -> None:
    objects = {f"train/{n % 7}/row-{n}.csv": str(n).encode() * n for n in range(60)}
    put(s3, bucket, **objects)
    fetch_channel(store, ChannelSpec("train", f"s3://{bucket}/train"), tmp_path / "in")
    assert files(tmp_path / "in") == {key.removeprefix("train/"): body for key, body in objects.items()}


def test_a_manifest_on_s3_brings_its_objects_unpacked(
    store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    put(
        s3,
        bucket,
        **{
            "d/a.csv.gz": gzip.compress(b"1,2\n"),
            "d/b.csv.gz": gzip.compress(b"3,4\n"),
            "m.json": json.dumps([{"prefix": f"s3://{bucket}/d/"}, "a.csv.gz"]).encode(),
        },
    )
    channel = ChannelSpec("train", f"s3://{bucket}/m.json", data_type="ManifestFile", compression="Gzip")
    fetch_channel(store, channel, tmp_path / "in")
    assert files(tmp_path / "in") == {"a.csv": b"1,2\n"}


@pytest.mark.parametrize("key", ["train/../../evil", "train/a/../b"])
def test_a_key_that_leads_out_of_the_folder_is_refused_by_name(
    store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path, key: str
) -> None:
    put(s3, bucket, **{key: b"x", "train/good": b"x"})
    with pytest.raises(StorageError, match=r"channel train: .*leads out of the folder"):
        fetch_channel(store, ChannelSpec("train", f"s3://{bucket}/train/"), tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_a_key_with_an_empty_part_is_an_error_that_names_it(
    store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    put(s3, bucket, **{"train//odd": b"x"})
    with pytest.raises(StorageError, match=r"channel train: .*train//odd"):
        fetch_channel(store, ChannelSpec("train", f"s3://{bucket}/train/"), tmp_path / "in")


def test_a_key_that_is_also_a_folder_is_an_error(store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, **{"train/a": b"x", "train/a/b": b"x"})
    with pytest.raises(StorageError, match="channel train: .*file where a folder is needed"):
        fetch_channel(store, ChannelSpec("train", f"s3://{bucket}/train/"), tmp_path / "in")


@pytest.mark.parametrize("uri", ["s3://BUCKET/nothing", "s3://no-such-bucket/train"])
def test_a_channel_of_nothing_names_channel_and_uri(store: ObjectStore, bucket: str, tmp_path: Path, uri: str) -> None:
    uri = uri.replace("BUCKET", bucket)
    with pytest.raises(ObjectNotFound, match=f"channel train: .*{uri}"):
        fetch_channel(store, ChannelSpec("train", uri), tmp_path / "in")
