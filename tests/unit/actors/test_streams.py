"""Streamed channels on real pipes and local files: spliced as they are, or read through the ring as if from afar."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import threading
from pathlib import Path

import psutil
import pytest
from pyarrow import fs

from raymaker.actors.backends import ArrowFiles
from raymaker.actors.channels.entries import Lines, Objects, Passes, Source
from raymaker.actors.channels.news import MIB, describe
from raymaker.actors.channels.recordio import LIMIT_BYTES, header
from raymaker.actors.channels.ring import Buffers
from raymaker.actors.channels.sharding import Shard
from raymaker.actors.errors import ObjectChanged, ObjectNotFound, StorageError, UnsupportedError
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, PinnedObject, StoreConfig
from support.streaming import BUFFER_BYTES, DistantStore, read_exactly, streaming, until, until_broken

SIZES = [0, 1, 3, 4, 70_000, 65_536, 2_500_000, 131_072, 7]


@pytest.fixture(params=[ObjectStore, DistantStore], ids=["spliced", "through the ring"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return request.param(StoreConfig(retry_s=0))


@pytest.fixture
def distant() -> ObjectStore:
    return DistantStore(StoreConfig(retry_s=0))


@pytest.fixture
def data(tmp_path: Path) -> dict[str, bytes]:
    """Objects in the folder `data`, of sizes around those of spans and paddings."""
    folder = tmp_path / "data"
    folder.mkdir()
    objects = {f"part-{index}": random.Random(index).randbytes(size) for index, size in enumerate(SIZES)}
    for name, content in objects.items():
        (folder / name).write_bytes(content)
    return objects


def pipe_channel(tmp_path: Path, **changes: object) -> ChannelSpec:
    return ChannelSpec("train", **{"uri": (tmp_path / "data").as_uri(), "input_mode": "Pipe", **changes})


def records_of(stream: bytes) -> list[bytes]:
    """Read RecordIO as its readers do."""
    found, position = [], 0
    while position < len(stream):
        magic, size = struct.unpack_from("<II", stream, position)
        assert magic == 0xCED7230A
        found.append(stream[position + 8 : position + 8 + size])
        position += 8 + size + -size % 4
    assert position == len(stream)
    return found


def test_each_pass_is_all_objects_one_after_another_and_its_pipe_goes_when_it_is_over(store, data, tmp_path):
    with streaming(store, tmp_path, pipe_channel(tmp_path)) as machine:
        (container,) = machine.containers
        assert container.pipes() == ["train_0", "train_1"] or container.pipes() == ["train_0"]
        for number in range(3):
            assert container.read(f"train_{number}") == b"".join(data.values())
        assert "train_0" not in container.pipes()
        assert "train_3" in container.pipes()
    assert machine.streams.problem is None
    total = 3 * sum(SIZES)
    assert machine.notes == [("ChannelStreamed", f"Channel train: algo-1 {total} bytes in 3 passes")]


def test_streams_that_begin_anew_begin_with_the_first_pass(store, data, tmp_path):
    whole = b"".join(data.values())
    with streaming(store, tmp_path, pipe_channel(tmp_path)) as machine:
        (container,) = machine.containers
        assert container.read("train_0") == container.read("train_1") == whole
        container.taste("train_2", 1)
        machine.streams.close()
        machine.streams.start()
        assert [container.read(f"train_{number}") for number in range(4)] == [whole] * 4
    assert machine.streams.problem is None


def test_records_are_wrapped_as_recordio_has_them(store, data, tmp_path):
    with streaming(store, tmp_path, pipe_channel(tmp_path, record_wrapper="RecordIO")) as machine:
        assert records_of(machine.containers[0].read("train_0")) == list(data.values())


@pytest.mark.parametrize("wrapper", ["None", "RecordIO"])
def test_gzip_is_opened_on_the_way(store, data, tmp_path, wrapper):
    for name, content in data.items():
        half = len(content) // 2
        (tmp_path / "data" / name).write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))
    channel = pipe_channel(tmp_path, compression="Gzip", record_wrapper=wrapper)
    with streaming(store, tmp_path, channel) as machine:
        stream = machine.containers[0].read("train_0")
    assert (records_of(stream) if wrapper == "RecordIO" else stream) == (
        list(data.values()) if wrapper == "RecordIO" else b"".join(data.values())
    )


def test_truncated_gzip_breaks_the_stream_by_name_and_the_pass_does_not_end(store, data, tmp_path):
    packed = gzip.compress(random.Random(0).randbytes(500_000))
    (tmp_path / "data" / "part-4").write_bytes(packed[:-20])
    for name in set(data) - {"part-4"}:
        (tmp_path / "data" / name).unlink()
    with streaming(store, tmp_path, pipe_channel(tmp_path, compression="Gzip")) as machine:
        reading = machine.containers[0].begin("train_0")
        assert "channel train: " in machine.until_problem()
        assert f"{(tmp_path / 'data' / 'part-4').as_uri()} is truncated" in machine.until_problem()
        assert not reading.done()


def test_what_is_no_gzip_breaks_the_stream_by_name(store, data, tmp_path):
    with streaming(store, tmp_path, pipe_channel(tmp_path, compression="Gzip")) as machine:
        machine.containers[0].begin("train_0")
        assert "part-1 is truncated" in machine.until_problem() or "part-1 is no gzip" in machine.until_problem()


def test_a_reader_that_leaves_early_finds_the_next_pass_from_its_beginning(store, data, tmp_path):
    whole = b"".join(data.values())
    with streaming(store, tmp_path, pipe_channel(tmp_path)) as machine:
        (container,) = machine.containers
        assert container.taste("train_0", 10) == whole[:10]
        assert container.taste("train_1", 100_000) == whole[:100_000]
        assert container.read("train_2") == whole
        assert machine.streams.problem is None


def test_a_reader_that_never_comes_holds_nothing_up(store, data, tmp_path):
    with streaming(store, tmp_path, pipe_channel(tmp_path)) as machine:
        pass
    assert machine.streams.problem is None
    assert machine.notes == [("ChannelStreamed", "Channel train: algo-1 0 bytes in 0 passes")]


def test_a_slow_reader_holds_the_stream_back_and_memory_does_not_grow(distant, tmp_path):
    (tmp_path / "data").mkdir()
    content = random.Random(1).randbytes(6 * BUFFER_BYTES)
    (tmp_path / "data" / "a").write_bytes(content)
    with streaming(distant, tmp_path, pipe_channel(tmp_path)) as machine:
        (stream,) = machine.streams._all()
        with (machine.containers[0].folder / "train_0").open("rb", buffering=0) as pipe:
            found = pipe.read(1)
            until(lambda: len(stream._buffers._free) + stream._buffers._unmade_count == 0, "all buffers are in use")
            assert stream._buffers.count * stream._buffers.span_bytes <= BUFFER_BYTES
            assert machine.streams.delivered_bytes()["train"] <= 1 + 1024 * 1024
            while piece := pipe.read(300_000):
                found += piece
    assert found == content


@pytest.mark.parametrize("seed", [None, 7])
def test_containers_share_the_objects_and_agree_on_who_gets_what(store, data, tmp_path, seed):
    channel = pipe_channel(tmp_path, distribution="ShardedByS3Key", shuffle_seed=seed, record_wrapper="RecordIO")
    with streaming(store, tmp_path, channel, ranks=range(2), world_size=2) as machine:
        for number in range(2):
            shares = [records_of(it.read(f"train_{number}")) for it in machine.containers]
            assert sorted(shares[0] + shares[1]) == sorted(data.values())
            assert {len(share) for share in shares} == {4, 5}


def test_each_pass_is_shuffled_anew_and_alike_for_all_containers(store, data, tmp_path):
    channel = pipe_channel(tmp_path, shuffle_seed=5, record_wrapper="RecordIO")
    with streaming(store, tmp_path, channel, ranks=range(2), world_size=4) as machine:
        first, second = ([records_of(it.read(f"train_{number}")) for it in machine.containers] for number in range(2))
    assert first[0] == first[1] != second[0] == second[1]
    assert sorted(first[0]) == sorted(second[0]) == sorted(data.values())


def test_a_manifest_streams_its_objects_in_its_own_order_also_twice(store, data, tmp_path):
    names = ["part-5", "part-4", "part-5"]
    manifest = tmp_path / "manifest"
    manifest.write_text(json.dumps([{"prefix": f"{(tmp_path / 'data').as_uri()}/"}, *names]))
    channel = pipe_channel(tmp_path, uri=manifest.as_uri(), data_type="ManifestFile")
    with streaming(store, tmp_path, channel) as machine:
        assert machine.containers[0].read("train_0") == b"".join(data[name] for name in names)


def test_a_manifest_with_a_missing_object_is_refused_by_its_name(store, data, tmp_path):
    manifest = tmp_path / "manifest"
    manifest.write_text(json.dumps([{"prefix": f"{(tmp_path / 'data').as_uri()}/"}, "part-5", "gone"]))
    channel = pipe_channel(tmp_path, uri=manifest.as_uri(), data_type="ManifestFile")
    with pytest.raises(ObjectNotFound, match=r"channel train: .*/gone"), streaming(store, tmp_path, channel):
        pass


def test_an_augmented_manifest_gives_attributes_in_order_and_the_objects_they_name(store, data, tmp_path):
    folder = (tmp_path / "data").as_uri()
    lines = [
        {"image-ref": f"{folder}/part-{index}", "other": 1, "label": label}
        for index, label in [(4, "cat"), (0, 7), (6, {"a": [1, 2]})]
    ]
    manifest = tmp_path / "manifest"
    manifest.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    channel = pipe_channel(
        tmp_path,
        uri=manifest.as_uri(),
        data_type="AugmentedManifestFile",
        attribute_names=("label", "image-ref"),
        record_wrapper="RecordIO",
    )
    with streaming(store, tmp_path, channel) as machine:
        stream = machine.containers[0].read("train_0")
    assert records_of(stream) == [b"cat", data["part-4"], b"7", b"", b'{"a": [1, 2]}', data["part-6"]]


def test_an_augmented_manifest_that_names_a_missing_object_breaks_when_it_comes_to_it(store, data, tmp_path):
    folder = (tmp_path / "data").as_uri()
    manifest = tmp_path / "manifest"
    manifest.write_text("".join(json.dumps({"a-ref": f"{folder}/{name}"}) + "\n" for name in ["part-4", "gone"]))
    channel = pipe_channel(
        tmp_path, uri=manifest.as_uri(), data_type="AugmentedManifestFile", attribute_names=("a-ref",)
    )
    with streaming(store, tmp_path, channel) as machine:
        reading = machine.containers[0].begin("train_0")
        assert f"{folder}/gone" in machine.until_problem()
        assert not reading.done()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1}\n{"b": 1}\n', "line 2 of .* has no attribute 'a'"),
        (b'{"a": 1}\nnothing\n', "line 2 of .* is no JSON"),
        (b"[1]\n", "line 1 of .* has no attribute 'a'"),
    ],
)
def test_a_broken_augmented_manifest_is_told_with_its_line(text, said):
    with pytest.raises(StorageError, match=said):
        Lines(text, "s3://b/m", ["a"])


def test_a_reference_that_is_no_uri_is_told():
    with pytest.raises(StorageError, match="'a-ref' ends in -ref"):
        Lines(b'{"a-ref": 5}', "s3://b/m", ["a-ref"])


def test_an_object_that_changes_while_it_is_streamed_breaks_the_stream_by_name(store, data, tmp_path):
    changing = tmp_path / "data" / "part-6"
    with (
        streaming(store, tmp_path, pipe_channel(tmp_path)) as machine,
        (machine.containers[0].folder / "train_0").open("rb", buffering=0) as pipe,
    ):
        read_exactly(pipe, sum(SIZES[:6]) + 10)
        changing.write_bytes(bytes(SIZES[6]))
        assert f"{changing.as_uri()} changed" in until_broken(machine, pipe)


def test_an_object_that_changes_from_pass_to_pass_breaks_the_stream(store, data, tmp_path):
    with streaming(store, tmp_path, pipe_channel(tmp_path)) as machine:
        (container,) = machine.containers
        container.read("train_0")
        second = tmp_path / "data" / "other"
        second.write_bytes(data["part-6"])
        second.replace(tmp_path / "data" / "part-6")
        container.taste("train_1", sum(SIZES[:5]))  # what was read ahead may be the old one
        container.begin("train_2")
        assert "part-6 changed" in machine.until_problem()


def test_an_object_that_disappears_breaks_the_stream_by_name(store, data, tmp_path):
    with streaming(store, tmp_path, pipe_channel(tmp_path)) as machine:
        (container,) = machine.containers
        container.read("train_0")
        (tmp_path / "data" / "part-6").unlink()
        container.taste("train_1", sum(SIZES[:5]))
        container.begin("train_2")
        assert "nothing lies at" in machine.until_problem()
        assert "part-6" in machine.until_problem()


def test_an_object_that_is_listed_and_not_given_out_is_told_before_containers_run(data, tmp_path):
    class Miser(DistantStore):
        def fill(self, item, *_):
            raise StorageError(f"{item.uri} is not for you")

    with (
        pytest.raises(StorageError, match=r"channel train: .*part-1 is not for you"),
        streaming(Miser(), tmp_path, pipe_channel(tmp_path)),
    ):
        pass


def test_memory_that_nothing_was_read_into_takes_no_room():
    size_bytes, over = 256 * 1024 * 1024, threading.Event()
    process = psutil.Process()
    before = process.memory_info().rss
    buffers = Buffers(size_bytes)
    taken = [buffers.take(over) for _ in range(buffers.count)]
    assert size_bytes * 0.9 < sum(map(len, taken)) < size_bytes
    assert process.memory_info().rss - before < size_bytes / 4


def test_a_channel_without_a_byte_is_told_and_its_passes_are_empty(store, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "_SUCCESS").touch()
    with streaming(store, tmp_path, pipe_channel(tmp_path)) as machine:
        assert machine.notes[0][0] == "ChannelEmpty"
        assert machine.containers[0].read("train_0") == b""


def test_a_channel_of_nothing_is_refused(store, tmp_path):
    (tmp_path / "data").mkdir()
    with (
        pytest.raises(ObjectNotFound, match="channel train: no object lies"),
        streaming(store, tmp_path, pipe_channel(tmp_path)),
    ):
        pass


def test_fewer_objects_than_containers_are_refused(tmp_path):
    channel = pipe_channel(tmp_path, distribution="ShardedByS3Key")
    with pytest.raises(UnsupportedError, match="3 containers are more"):
        Passes(Lines(b"{}\n{}\n", "s3://b/m", []), channel, Shard(0, 3))


def test_a_shuffled_share_moves_from_container_to_container(tmp_path):
    lines = Lines(b"".join(b'{"n": %d}\n' % n for n in range(20)), "s3://b/m", ["n"])
    channel = pipe_channel(tmp_path, distribution="ShardedByS3Key", shuffle_seed=1)
    passes = [Passes(lines, channel, Shard(index, 2)) for index in range(2)]
    found = [[sorted(it.records(epoch)) for it in passes] for epoch in range(2)]
    assert found[0] != found[1]
    assert all(sorted(one + two) == sorted(found[0][0] + found[0][1]) for one, two in found)


def test_a_name_that_the_container_replaced_is_not_followed(store, data, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    with streaming(store, tmp_path, pipe_channel(tmp_path)) as machine:
        (container,) = machine.containers
        descriptor = os.open(container.folder / "train_0", os.O_RDONLY)
        (container.folder / "train_1").unlink()
        (container.folder / "train_1").symlink_to(victim)
        os.close(descriptor)
        assert "train_1 in /opt/ml/input/data was removed or replaced" in machine.until_problem()
    assert victim.read_text() == "untouched"
    assert victim.stat().st_mode & 0o777 != 0o666


def test_an_object_too_large_for_a_record_is_refused_by_name():
    assert header(LIMIT_BYTES - 1, "x")[:4] == bytes.fromhex("0a23d7ce")
    with pytest.raises(UnsupportedError, match=r"s3://b/x has 536870912 bytes or more"):
        header(LIMIT_BYTES, "s3://b/x")


def test_a_pinned_object_keeps_the_version_that_was_seen_first():
    item = PinnedObject("s3://b/x", 5)
    item.agree("one", 5)
    item.agree("one", 5)
    for version, size in [("two", 5), ("one", 6)]:
        with pytest.raises(StorageError):
            item.agree(version, size)


def test_part_of_an_object_of_another_filesystem_is_of_one_version(tmp_path):
    place = tmp_path / "object"
    place.write_bytes(b"0123456789")
    files = ArrowFiles("other", fs.LocalFileSystem())
    part = files.open_part(str(place), 2, 8, None)
    found = bytearray(20)
    assert part.size_bytes == 10
    assert part.readinto(memoryview(found)) == 6
    assert found[:6] == b"234567"
    part.close()
    part = files.open_part(str(place), 0, 10, None)
    os.utime(place, (1, 1))
    with pytest.raises(ObjectChanged):
        part.readinto(memoryview(found))
    part.close()
    with pytest.raises(FileNotFoundError):
        files.open_part(str(tmp_path / "gone"), 0, 1, None)


def test_news_of_streams_say_pass_bytes_and_rate():
    last, now = {"a": 0, "b": 5 * MIB}, {"a": 30 * MIB, "b": 5 * MIB}
    assert describe({"a": 2, "b": 1}, last, now, 10.0) == (
        "Channel a: pass 2, 30 MiB delivered, 3.0 MiB/s; Channel b: pass 1, 5 MiB delivered, 0.0 MiB/s"
    )


def test_objects_tell_whether_they_are_files_of_this_machine(data, tmp_path):
    found = ObjectStore().list_objects((tmp_path / "data").as_uri())
    assert Objects(ObjectStore(), found).are_files
    assert not Objects(DistantStore(), found).are_files
    assert Objects(DistantStore(), found).records(1) == [Source((tmp_path / "data" / "part-1").as_uri(), 1)]
