"""Streamed channels from S3 over the wire, through a gate that cuts and halts what the store says."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import random
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pyarrow import parquet

from raymaker.actors.errors import ObjectNotFound
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig
from support.gate import Gate
from support.s3 import ObjectStore as S3Server
from support.streaming import read_exactly, streaming, until_broken

MIB = 1024 * 1024
BUFFER_BYTES = 4 * MIB
SILENCE_S = 1.0


@pytest.fixture
def gate(s3: S3Server) -> Iterator[Gate]:
    with contextlib.closing(Gate(s3.endpoint_url)) as made:
        yield made


@pytest.fixture
def store(s3: S3Server, gate: Gate) -> ObjectStore:
    return store_behind(gate.endpoint_url, s3, retry_s=10.0)


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def big(s3: S3Server, bucket: str) -> bytes:
    """The object `data/big`, which takes many ranges."""
    content = random.Random(0).randbytes(9 * MIB + 17)
    put(s3, bucket, **{"data/big": content})
    return content


def store_behind(url: str, s3: S3Server, retry_s: float) -> ObjectStore:
    config = StoreConfig(url, s3.access_key, s3.secret_key, s3.region, retry_s=retry_s, silence_s=SILENCE_S)
    return ObjectStore(config)


def put(s3: S3Server, bucket: str, **objects: bytes) -> None:
    client = s3.client()
    for key, body in objects.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)
    client.close()


def channel_of(bucket: str, **changes: object) -> ChannelSpec:
    return ChannelSpec("train", **{"uri": f"s3://{bucket}/data", "input_mode": "Pipe", **changes})


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_objects_large_small_and_empty_come_whole_and_in_order_every_pass(store, s3, bucket, big, tmp_path):
    small = {f"data/part-{n:03}": random.Random(n).randbytes(n * 101) for n in range(60)}
    put(s3, bucket, **small)
    with streaming(store, tmp_path, channel_of(bucket), buffer_bytes=BUFFER_BYTES) as machine:
        for number in range(2):
            assert digest(machine.containers[0].read(f"train_{number}")) == digest(big + b"".join(small.values()))
    assert machine.streams.problem is None


@pytest.mark.parametrize("is_halt", [False, True], ids=["cut", "halted"])
def test_each_range_goes_on_where_the_store_failed_in_the_middle(  # noqa: PLR0917 - fixtures
    store, gate, bucket, big, tmp_path, is_halt
):
    with gate.spoil("/data/big", after_bytes=200_000, count=6, is_halt=is_halt) as flaw:
        with streaming(store, tmp_path, channel_of(bucket), buffer_bytes=BUFFER_BYTES) as machine:
            assert digest(machine.containers[0].read("train_0")) == digest(big)
        assert len(flaw.spoilt) == 6


def test_a_range_whose_answer_never_begins_is_asked_for_again(store, gate, bucket, big, tmp_path):
    with (
        gate.spoil("/data/big", after_bytes=0, count=3, is_halt=True),
        streaming(store, tmp_path, channel_of(bucket), buffer_bytes=BUFFER_BYTES) as machine,
    ):
        assert digest(machine.containers[0].read("train_0")) == digest(big)


def test_a_store_that_stays_away_breaks_the_stream_by_the_objects_name(s3, gate, bucket, big, tmp_path):
    store = store_behind(gate.endpoint_url, s3, retry_s=0.5)
    with streaming(store, tmp_path, channel_of(bucket), buffer_bytes=BUFFER_BYTES) as machine:
        (container,) = machine.containers
        with (container.folder / "train_0").open("rb", buffering=0) as pipe:
            assert read_exactly(pipe, 1000) == big[:1000]
            with gate.spoil("/data/big", after_bytes=0, count=1000):
                assert f"could not read s3://{bucket}/data/big" in until_broken(machine, pipe)


@pytest.mark.parametrize("change", ["replaced", "shorter", "gone"])
def test_an_object_that_is_another_by_now_breaks_the_stream_by_name(  # noqa: PLR0917 - fixtures
    store, s3, bucket, big, tmp_path, change
):
    with (
        streaming(store, tmp_path, channel_of(bucket), buffer_bytes=BUFFER_BYTES) as machine,
        (machine.containers[0].folder / "train_0").open("rb", buffering=0) as pipe,
    ):
        assert read_exactly(pipe, 1000) == big[:1000]
        if change == "gone":
            client = s3.client()
            client.delete_object(Bucket=bucket, Key="data/big")
            client.close()
        else:
            put(s3, bucket, **{"data/big": big[: 2 * MIB] if change == "shorter" else bytes(len(big))})
        said = until_broken(machine, pipe)
    assert f"s3://{bucket}/data/big" in said
    assert ("nothing lies at" if change == "gone" else "changed while it was read") in said


def test_an_object_that_was_replaced_between_passes_breaks_the_stream(store, s3, bucket, big, tmp_path):
    with streaming(store, tmp_path, channel_of(bucket), buffer_bytes=BUFFER_BYTES) as machine:
        (container,) = machine.containers
        container.taste("train_0", 1000)
        put(s3, bucket, **{"data/big": big[::-1]})
        container.taste("train_1", 1000)  # read ahead, perhaps, before it was replaced
        container.begin("train_2")
        assert "changed while it was read" in machine.until_problem()


@pytest.mark.parametrize("wrapper", ["None", "RecordIO"])
def test_gzip_that_ends_too_early_breaks_the_stream_by_name(store, s3, bucket, tmp_path, wrapper):
    packed = gzip.compress(random.Random(0).randbytes(3 * MIB))
    put(s3, bucket, **{"data/a.gz": packed, "data/b.gz": packed[:-1000]})
    channel = channel_of(bucket, compression="Gzip", record_wrapper=wrapper)
    with streaming(store, tmp_path, channel, buffer_bytes=BUFFER_BYTES) as machine:
        reading = machine.containers[0].begin("train_0")
        assert f"s3://{bucket}/data/b.gz is truncated" in machine.until_problem()
        assert not reading.done()


def test_gzip_comes_unpacked_though_the_store_fails_in_the_middle(store, gate, s3, bucket, tmp_path):
    content = random.Random(0).randbytes(3 * MIB) + bytes(20 * MIB)
    put(s3, bucket, **{"data/a.gz": gzip.compress(content), "data/b.gz": gzip.compress(b"the end")})
    channel = channel_of(bucket, compression="Gzip")
    with (
        gate.spoil("/data/a.gz", after_bytes=100_000, count=3),
        streaming(store, tmp_path, channel, buffer_bytes=BUFFER_BYTES) as machine,
    ):
        assert digest(machine.containers[0].read("train_0")) == digest(content + b"the end")


def test_a_manifest_with_a_missing_object_is_refused_by_its_name(store, s3, bucket, big, tmp_path):
    manifest = json.dumps([{"prefix": f"s3://{bucket}/data/"}, "big", "gone"]).encode()
    put(s3, bucket, manifest=manifest)
    channel = channel_of(bucket, uri=f"s3://{bucket}/manifest", data_type="ManifestFile")
    with (
        pytest.raises(ObjectNotFound, match=rf"channel train: .*s3://{bucket}/data/gone"),
        streaming(store, tmp_path, channel),
    ):
        pass


def test_an_augmented_manifest_brings_many_objects_in_its_order(store, s3, bucket, tmp_path):
    images = {f"data/{n}.png": random.Random(n).randbytes(1000 + n) for n in range(120)}
    put(s3, bucket, **images)
    lines = [json.dumps({"source-ref": f"s3://{bucket}/{key}", "class": key[5:-4]}) for key in images]
    put(s3, bucket, manifest="\n".join(lines).encode())
    channel = channel_of(
        bucket,
        uri=f"s3://{bucket}/manifest",
        data_type="AugmentedManifestFile",
        attribute_names=("source-ref", "class"),
    )
    with streaming(store, tmp_path, channel, buffer_bytes=BUFFER_BYTES) as machine:
        whole = b"".join(image + key[5:-4].encode() for key, image in images.items())
        assert digest(machine.containers[0].read("train_0")) == digest(whole)


def test_tables_come_whole_though_the_store_fails_in_the_middle(store, gate, s3, bucket, tmp_path):
    numbers = list(range(400_000))
    half = numbers[:200_000]
    packed = io.BytesIO()
    parquet.write_table(pa.table({"n": half, "x": [n / 2 for n in half]}), packed, row_group_size=20_000)
    rows = "".join(f"{n},{n / 2}\n" for n in numbers[200_000:])
    put(s3, bucket, **{"data/a.parquet": packed.getvalue(), "data/b.csv": f"n,x\n{rows}".encode()})
    channel = channel_of(bucket, input_mode="Arrow", distribution="ShardedByS3Key", shard_by="Record")
    with (
        gate.spoil("/data/", after_bytes=100_000, count=6) as flaw,
        streaming(store, tmp_path, channel, ranks=range(2), world_size=2, buffer_bytes=BUFFER_BYTES) as machine,
    ):
        streams = [it.begin("train_0") for it in machine.containers]
        shares = [pa.ipc.open_stream(io.BytesIO(it.result(60))).read_all()["n"].to_pylist() for it in streams]
    assert len(flaw.spoilt) == 6
    assert shares == [numbers[::2], numbers[1::2]]


def test_containers_of_a_machine_share_a_channels_memory_and_each_reads_at_its_own_pace(
    store, s3, bucket, big, tmp_path
):
    with streaming(
        store, tmp_path, channel_of(bucket), ranks=range(2), world_size=2, buffer_bytes=BUFFER_BYTES
    ) as machine:
        first, second = machine.containers
        assert digest(first.read("train_0")) == digest(big)
        assert second.taste("train_0", 10) == big[:10]
        assert digest(first.read("train_1")) == digest(big)
        assert digest(second.read("train_1")) == digest(big)
        held = sum(stream._buffers.count * stream._buffers.span_bytes for stream in machine.streams._all())
    assert held <= BUFFER_BYTES
