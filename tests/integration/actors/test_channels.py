"""Training channels from S3 over the wire."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from raymaker.actors.channels.file import fetch_channel
from raymaker.actors.errors import ObjectNotFound, StorageError, UnsupportedError
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


def shares(store: ObjectStore, channel: ChannelSpec, folder: Path, shard_count: int) -> list[dict[str, bytes]]:
    """What each of `shard_count` containers finds in its folder."""
    for index in range(shard_count):
        fetch_channel(store, channel, folder / str(index), shard_index=index, shard_count=shard_count)
    return [files(folder / str(index)) for index in range(shard_count)]


def test_containers_share_a_prefix_by_key_alike_after_a_restart(
    store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    objects = {f"train/{n % 3}/row-{n:02}.csv": b"x" * (n * n) for n in range(23)}
    put(s3, bucket, **objects)
    channel = ChannelSpec("train", f"s3://{bucket}/train", distribution="ShardedByS3Key")
    before = shares(store, channel, tmp_path / "before", 4)
    assert sorted(map(len, before)) == [5, 6, 6, 6]
    assert max(map(_size, before)) - min(map(_size, before)) <= 22 * 22
    assert {f"train/{name}": body for share in before for name, body in share.items()} == objects
    assert shares(store, channel, tmp_path / "after", 4) == before


def test_two_containers_share_one_parquet_file_on_s3(
    store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    table = pa.table({"n": list(range(10_001)), "text": [f"row {n}" for n in range(10_001)]})
    content = io.BytesIO()
    parquet.write_table(table, content, row_group_size=3000)
    put(s3, bucket, **{"train/rows.parquet": content.getvalue(), "train/_SUCCESS": b""})
    channel = ChannelSpec("train", f"s3://{bucket}/train", distribution="ShardedByS3Key", shard_by="Record")
    first, second = (
        parquet.read_table(io.BytesIO(share["rows.parquet"])) for share in shares(store, channel, tmp_path, 2)
    )
    assert (first.num_rows, second.num_rows) == (5001, 5000)
    assert pa.concat_tables([first, second]).equals(table)


def test_three_containers_share_csv_and_json_lines_of_a_manifest_on_s3(
    store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    csv = b"".join(b'%d,"line\n%d"\r\n' % (n, n) for n in range(100))
    lines = b"".join(b'{"n": %d}\n' % n for n in range(50))
    manifest = [{"prefix": f"s3://{bucket}/d/"}, "a.csv", "b.jsonl.gz"]
    put(
        s3,
        bucket,
        **{
            "d/a.csv": b"n,text\r\n" + csv,
            "d/b.jsonl.gz": gzip.compress(lines),
            "m.json": json.dumps(manifest).encode(),
        },
    )
    channel = ChannelSpec(
        "train",
        f"s3://{bucket}/m.json",
        data_type="ManifestFile",
        distribution="ShardedByS3Key",
        shard_by="Record",
    )
    found = shares(store, channel, tmp_path, 3)
    assert all(share["a.csv"].startswith(b"n,text\r\n") for share in found)
    assert b"".join(share["a.csv"].removeprefix(b"n,text\r\n") for share in found) == csv
    assert b"".join(gzip.decompress(share["b.jsonl.gz"]) for share in found) == lines
    assert [share["a.csv"].count(b"\r\n") - 1 for share in found] == [34, 33, 33]
    assert [gzip.decompress(share["b.jsonl.gz"]).count(b"\n") for share in found] == [16, 17, 17]


def test_more_containers_than_objects_on_s3_are_told_before_anything_is_fetched(
    store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    put(s3, bucket, **{"train/a.csv": b"1\n"})
    channel = ChannelSpec("train", f"s3://{bucket}/train", distribution="ShardedByS3Key")
    with pytest.raises(UnsupportedError, match=r"channel train: 2 containers are more .* \(1\), .*ShardBy Record"):
        fetch_channel(store, channel, tmp_path / "in", shard_index=0, shard_count=2)
    assert files(tmp_path / "in") == {}


def _size(share: dict[str, bytes]) -> int:
    return sum(map(len, share.values()))
