"""File mode over the wire, from a store that fails, and through the machine's cache; and how it is laid before jobs."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.channels import transfers
from raymaker.actors.channels.cache import ObjectCache
from raymaker.actors.channels.file import fetch_channel
from raymaker.actors.channels.laying import Laying
from raymaker.actors.contract import MOUNT_POINT, SEEN
from raymaker.actors.errors import ChecksumMismatch, ObjectChanged, StorageError
from raymaker.actors.job_folders import JobFolders
from raymaker.actors.mounting import may_mount, mounts_below, remove_tree
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig
from support.faulty_network import FaultyNetwork
from support.s3 import ObjectStore as S3Server

MIB = 1024 * 1024
BIG = random.Random(0).randbytes(6 * MIB)
PARTS_CRC32 = {"big": BIG, "small": b"1,2\n", "sub/empty": b""}


@pytest.fixture
def store(s3: S3Server, network: FaultyNetwork, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr(transfers, "BUFFER_BYTES", 8 * MIB)  # ranges of 1 MiB
    return ObjectStore(StoreConfig(network.endpoint_url, s3.access_key, s3.secret_key, s3.region, retry_s=20))


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = s3.bucket()
    for key, body in PARTS_CRC32.items():
        s3.put(name, f"data/{key}", body)
    return name


def channel(bucket: str, prefix: str = "data", **options: Any) -> ChannelSpec:
    return ChannelSpec("train", f"s3://{bucket}/{prefix}", **options)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


WHOLE = {name: hashlib.sha256(body).hexdigest() for name, body in PARTS_CRC32.items()}


def test_a_broken_download_goes_on_where_it_was_and_the_second_job_reads_nothing(
    store: ObjectStore, network: FaultyNetwork, bucket: str, tmp_path: Path
) -> None:
    cache = ObjectCache(tmp_path / "cache", 100 * MIB)
    network.cut_next_transfers(3)
    assert fetch_channel(store, channel(bucket), tmp_path / "one", cache=cache) == 0
    assert digests(tmp_path / "one") == WHOLE
    asked = [span for method, span in network.requests if method == "GET" and span]
    assert len(set(asked)) == len(asked), "nothing was asked for twice"
    ranges = [tuple(map(int, span.removeprefix("bytes=").split("-"))) for span in asked]
    resumed = [it for it in ranges if any(other[0] < it[0] and it[1] == other[1] for other in ranges)]
    assert len(resumed) == 3, "what was cut was asked for from where it was"
    network.requests.clear()
    assert fetch_channel(store, channel(bucket), tmp_path / "two", cache=cache) == len(BIG) + 4
    assert digests(tmp_path / "two") == WHOLE
    assert [method for method, span in network.requests if span] == []


def test_an_object_that_is_replaced_while_it_comes_fails_the_channel_by_its_name(
    store: ObjectStore, network: FaultyNetwork, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    network.cut_next_transfers(1)
    reads = iter(range(1000))
    network.on_get = lambda: s3.put(bucket, "data/big", BIG[::-1]) if next(reads) == 2 else None
    with pytest.raises(ObjectChanged, match=f"channel train: s3://{bucket}/data/big changed while it was read"):
        fetch_channel(store, channel(bucket, "data/big"), tmp_path / "in", cache=ObjectCache(tmp_path / "c", 100 * MIB))
    assert digests(tmp_path / "in") == {}


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({}, BIG),
        ({"ChecksumAlgorithm": "SHA256"}, BIG),
        ({"ChecksumAlgorithm": "SHA1"}, BIG[:5000]),
        ({"ServerSideEncryption": "aws:kms", "ChecksumAlgorithm": "CRC32"}, BIG[:5000]),
    ],
)
def test_bytes_that_are_not_the_objects_are_found_out(  # noqa: PLR0917 - fixtures
    store: ObjectStore, network: FaultyNetwork, s3: S3Server, tmp_path: Path, options: dict[str, str], body: bytes
) -> None:
    bucket = s3.bucket()
    s3.put(bucket, "checked", body, **options)
    cache = ObjectCache(tmp_path / "cache", 100 * MIB)
    network.damage_next_transfers(1)
    with pytest.raises(ChecksumMismatch, match=f"channel train: s3://{bucket}/checked came with other bytes"):
        fetch_channel(store, channel(bucket, "checked"), tmp_path / "in", cache=cache)
    assert digests(tmp_path / "in") == {}
    assert fetch_channel(store, channel(bucket, "checked"), tmp_path / "in", cache=cache) == 0, "nothing was kept of it"
    assert digests(tmp_path / "in") == {"checked": hashlib.sha256(body).hexdigest()}


def test_an_upload_in_parts_is_fetched_and_kept_too(
    store: ObjectStore, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    client = s3.client()
    place = {"Bucket": bucket, "Key": "parts"}
    upload = client.create_multipart_upload(**place)["UploadId"]
    bodies = [BIG[: 5 * MIB], BIG[5 * MIB :]]
    parts = [
        {"PartNumber": n, "ETag": client.upload_part(**place, UploadId=upload, PartNumber=n, Body=body)["ETag"]}
        for n, body in enumerate(bodies, 1)
    ]
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
    client.close()
    cache = ObjectCache(tmp_path / "cache", 100 * MIB)
    for name, cached in (("one", 0), ("two", len(BIG))):
        assert fetch_channel(store, channel(bucket, "parts"), tmp_path / name, cache=cache) == cached
        assert digests(tmp_path / name) == {"parts": WHOLE["big"]}


def test_shares_of_objects_and_of_records_come_from_the_cache(
    store: ObjectStore, network: FaultyNetwork, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    cache = ObjectCache(tmp_path / "cache", 100 * MIB)
    s3.put(bucket, "rows.csv", b"".join(b"%d,x\n" % n for n in range(100)))
    by_record = channel(bucket, "rows.csv", distribution="ShardedByS3Key", shard_by="Record")
    rows = []
    for rank in (0, 1):
        fetch_channel(store, by_record, tmp_path / str(rank), shard_index=rank, shard_count=2, cache=cache)
        rows += (tmp_path / str(rank) / "rows.csv").read_bytes().splitlines()
    assert len(rows) == 100
    assert len([span for _, span in network.requests if span]) == 1, "one read for all containers"
    by_object = channel(bucket, distribution="ShardedByS3Key")
    fetch_channel(store, channel(bucket), tmp_path / "whole", cache=cache)
    cached = [
        fetch_channel(store, by_object, tmp_path / f"o{rank}", shard_index=rank, shard_count=2, cache=cache)
        for rank in (0, 1)
    ]
    assert sum(cached) == len(BIG) + 4


def test_without_the_right_to_read_an_object_the_cache_is_of_no_use(
    store: ObjectStore, network: FaultyNetwork, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    cache = ObjectCache(tmp_path / "cache", 100 * MIB)
    fetch_channel(store, channel(bucket), tmp_path / "one", cache=cache)
    before = len(network.requests)
    fetch_channel(store, channel(bucket), tmp_path / "two", cache=cache)
    heads = [method for method, _ in network.requests[before:] if method == "HEAD"]
    assert len(heads) >= 2, "each object was asked for"
    network.refuse_next(1000, 403)
    with pytest.raises(StorageError, match="access was denied"):
        fetch_channel(store, channel(bucket), tmp_path / "three", cache=cache)
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("driver", ["process", "docker of another machine"])
def test_what_a_container_writes_reaches_neither_the_cache_nor_the_next_job(
    store: ObjectStore, bucket: str, tmp_path: Path, driver: str
) -> None:
    mounts = driver == "process" and may_mount(driver)  # which root may
    cache, notes = ObjectCache(tmp_path / "cache", 100 * MIB), []
    laying = Laying(store, cache, lambda *note: notes.append(note), may_mount=mounts)
    for job in ("one", "two"):
        laying.lay(channel(bucket), tmp_path / job)
        seen = tmp_path / job / MOUNT_POINT / SEEN
        assert digests(seen) == WHOLE
        with (seen / "big").open("r+b") as file:
            file.write(b"another beginning")
        (seen / "small").unlink()
        (seen / "sub" / "more").write_text("more")
        assert (seen / "big").read_bytes()[17:] == BIG[17:]
    assert notes == [("ChannelCached", "Channel train: 6 MiB from this machine's cache")]
    assert len(mounts_below(tmp_path)) == (2 if mounts else 0)
    for job in ("one", "two"):
        remove_tree(tmp_path / job)
        assert not (tmp_path / job).exists()
    assert mounts_below(tmp_path) == []


def test_what_a_dead_job_had_mounted_goes_with_its_folder_and_the_cache_stays(
    store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    laying = Laying(store, ObjectCache(tmp_path / "cache", 100 * MIB), lambda *_: None, may_mount=may_mount("process"))
    for part in ("1/0/channels/train", "1-channels/train"):
        laying.lay(channel(bucket), tmp_path / "jobs" / "mine" / part)
    leftovers = JobFolders(tmp_path)
    for handle, _ in leftovers.owned({}):
        leftovers.remove(handle)
    assert mounts_below(tmp_path) == []
    assert list((tmp_path / "jobs").iterdir()) == []
    assert fetch_channel(store, channel(bucket), tmp_path / "next", cache=ObjectCache(tmp_path / "cache", 100 * MIB))
    assert digests(tmp_path / "next") == WHOLE
