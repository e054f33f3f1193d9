"""The machine's cache of objects, and downloads that are checked: of files that are read as if they were elsewhere."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raymaker.actors.channels import transfers
from raymaker.actors.channels.cache import ObjectCache
from raymaker.actors.channels.fetching import Fetcher
from raymaker.actors.channels.ring import SMALLEST_SPAN_BYTES
from raymaker.actors.channels.transfers import Transfers
from raymaker.actors.errors import ChecksumMismatch, ObjectChanged, StorageError
from raymaker.actors.ranges import Checksum, Facts
from raymaker.actors.storage import ObjectInfo, ObjectStore, PinnedObject, StoreConfig
from support.streaming import DistantStore

KIB = 1024
CONTENT = random.Random(0).randbytes(150 * KIB)
TIMEOUT_S = 60.0


class CountingStore(DistantStore):
    """A store whose versions tell the content; counts the ranges that are read."""

    def __init__(self) -> None:
        super().__init__(StoreConfig(retry_s=0))
        self.ranges: list[int] = []
        self.looks = 0
        self.before: Callable[[int], None] = lambda _start: None
        """Called before a range is read."""
        self.checksum: Checksum | None = None
        """What the store tells of every object."""
        self.denial: StorageError | None = None

    def lasting_name(self, uri: str) -> str | None:
        return f"store {uri}"

    def look(self, uri: str) -> Facts:
        self.looks += 1
        if self.denial is not None:
            raise self.denial
        return dataclasses.replace(super().look(uri), checksum=self.checksum)

    def fill(self, item, start, view, on_bytes, is_over=lambda: False) -> None:
        self.ranges.append(start)
        self.before(start)
        super().fill(item, start, view, on_bytes, is_over)


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "BUFFER_BYTES", 4 * SMALLEST_SPAN_BYTES)
    monkeypatch.setattr(transfers, "SMALL_BYTES", 10 * KIB)
    monkeypatch.setattr(transfers, "LOOKED_UP_BYTES", 100 * KIB)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def item(tmp_path: Path) -> ObjectInfo:
    return make(tmp_path, "object", CONTENT)


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "cache", 1024 * KIB)


def make(folder: Path, name: str, content: bytes) -> ObjectInfo:
    (folder / name).write_bytes(content)
    return ObjectInfo(str(folder / name), name, len(content), 1_700_000_000.0)


def fetch(store: ObjectStore, cache: ObjectCache, target: Path, *items: ObjectInfo, links: bool = False) -> int:
    """Fetch objects as a channel does; returns the bytes that were in the cache."""
    fetcher = Fetcher(store, cache, links=links)
    fetcher.expect(items)
    for item in items:
        fetcher.fetch(item, target / item.relative_name)
    return fetcher.cached_bytes


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("cache/??/*") if path.is_file())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_was_fetched_once_is_not_read_again(store: CountingStore, cache, item: ObjectInfo, tmp_path: Path) -> None:
    assert fetch(store, cache, tmp_path / "one", item) == 0
    assert sorted(store.ranges) == [0, 64 * KIB, 128 * KIB]
    assert fetch(store, cache, tmp_path / "two", item) == len(CONTENT)
    assert len(store.ranges) == 3
    assert digest(tmp_path / "one" / "object") == digest(tmp_path / "two" / "object") == digest(Path(item.uri))


def test_a_copy_may_be_written_to_and_a_link_is_the_entry_itself(
    store: CountingStore, cache, item: ObjectInfo, tmp_path: Path
) -> None:
    fetch(store, cache, tmp_path / "copy", item)
    (tmp_path / "copy" / "object").write_bytes(b"changed by a container")
    fetch(store, cache, tmp_path / "link", item, links=True)
    assert (tmp_path / "link" / "object").samefile(entries(tmp_path)[0])
    assert digest(tmp_path / "link" / "object") == digest(Path(item.uri))


def test_an_object_that_is_another_by_now_is_fetched_anew(
    store: CountingStore, cache, item: ObjectInfo, tmp_path: Path
) -> None:
    fetch(store, cache, tmp_path / "one", item)
    Path(item.uri).unlink()
    other = make(tmp_path, "object", CONTENT[::-1])
    assert fetch(store, cache, tmp_path / "two", other) == 0
    assert (tmp_path / "two" / "object").read_bytes() == CONTENT[::-1]
    assert len(entries(tmp_path)) == 1, "the older version is gone"


def test_who_may_not_read_the_object_does_not_get_it_from_the_cache(
    store: CountingStore, cache, item: ObjectInfo, tmp_path: Path
) -> None:
    fetch(store, cache, tmp_path / "one", item)
    store.denial = StorageError("access was denied")
    with pytest.raises(StorageError, match="denied"):
        fetch(store, cache, tmp_path / "two", item)
    assert not (tmp_path / "two" / "object").exists()


def test_another_store_with_the_same_names_is_another_object(cache, item: ObjectInfo, tmp_path: Path) -> None:
    class Elsewhere(CountingStore):
        def lasting_name(self, uri: str) -> str | None:
            return f"elsewhere {uri}"

    fetch(CountingStore(), cache, tmp_path / "one", item)
    assert fetch(Elsewhere(), cache, tmp_path / "two", item) == 0


def test_what_was_left_half_written_is_never_used(
    store: CountingStore, cache, item: ObjectInfo, tmp_path: Path
) -> None:
    def die(start: int) -> None:
        if start:
            raise OSError(errno.EIO, "the machine dies")

    store.before = die
    with pytest.raises(StorageError, match="the machine dies"):
        fetch(store, cache, tmp_path / "one", item)
    assert entries(tmp_path) == []
    key = hashlib.sha256(b"store " + item.uri.encode()).hexdigest()[:40]
    part = tmp_path / "cache" / key[:2] / f".{key}.part"
    part.write_bytes(CONTENT[::-1])  # as a process leaves it that is killed
    store.before = lambda _start: None
    assert fetch(store, cache, tmp_path / "two", item) == 0
    assert (tmp_path / "two" / "object").read_bytes() == CONTENT
    assert not part.exists()


def test_an_entry_that_was_written_to_is_found_out(
    store: CountingStore, cache, item: ObjectInfo, tmp_path: Path
) -> None:
    fetch(store, cache, tmp_path / "one", item)
    entries(tmp_path)[0].write_bytes(CONTENT[::-1])
    assert fetch(store, cache, tmp_path / "two", item) == 0
    assert (tmp_path / "two" / "object").read_bytes() == CONTENT


@pytest.mark.parametrize("found_bytes", [0, len(CONTENT)])
def test_after_a_restart_of_the_machine_an_entry_is_added_up_before_it_is_used(
    store: CountingStore, cache, item: ObjectInfo, tmp_path: Path, found_bytes: int
) -> None:
    fetch(store, cache, tmp_path / "one", item)
    (entry,) = entries(tmp_path)
    if not found_bytes:  # blocks that never reached the disk
        times = entry.stat()
        entry.write_bytes(b"\0" * len(CONTENT))
        os.utime(entry, ns=(times.st_atime_ns, times.st_mtime_ns))
    cache._boot = "another"
    assert fetch(store, cache, tmp_path / "two", item) == found_bytes
    assert (tmp_path / "two" / "object").read_bytes() == CONTENT


def test_of_two_jobs_at_once_one_fetches_and_the_other_waits_and_hears_how_far_it_is(
    store: CountingStore, cache, item: ObjectInfo, tmp_path: Path
) -> None:
    is_under_way, other_waits = threading.Event(), threading.Event()

    def pause(start: int) -> None:
        if start == 128 * KIB:
            is_under_way.set()
            assert other_waits.wait(TIMEOUT_S)

    store.before = pause
    patient = CountingStore()

    def heard(done: int, _total: int) -> None:
        if done:
            other_waits.set()

    def fetch_too() -> int:
        assert is_under_way.wait(TIMEOUT_S)
        fetcher = Fetcher(patient, cache, heard)
        fetcher.expect([item])
        fetcher.fetch(item, tmp_path / "two" / "object")
        return fetcher.cached_bytes

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fetch, store, cache, tmp_path / "one", item)
        second = threads.submit(fetch_too)
        assert (first.result(), second.result()) == (0, len(CONTENT))
    assert patient.ranges == []
    assert digest(tmp_path / "two" / "object") == digest(Path(item.uri))


def test_the_cache_stays_within_its_limit_and_forgets_what_was_used_longest_ago(
    store: CountingStore, tmp_path: Path
) -> None:
    cache = ObjectCache(tmp_path / "cache", 250 * KIB)
    items = [make(tmp_path, name, random.Random(name).randbytes(100 * KIB)) for name in ("a", "b", "c")]
    for number, item in enumerate([items[0], items[1], items[0], items[2]]):
        fetch(store, cache, tmp_path / str(number), item)
        assert sum(path.stat().st_size for path in entries(tmp_path)) <= 250 * KIB
    again = {item.relative_name: fetch(store, cache, tmp_path / f"again-{item.relative_name}", item) for item in items}
    assert (again["a"], again["b"]) == (100 * KIB, 0)


def test_what_a_job_uses_stays_and_what_finds_no_room_comes_all_the_same(store: CountingStore, tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "cache", 150 * KIB)
    items = [make(tmp_path, name, random.Random(name).randbytes(100 * KIB)) for name in ("a", "b")]
    fetch(store, cache, tmp_path / "one", items[0], links=True)
    fetch(store, cache, tmp_path / "two", items[1], links=True)
    assert digest(tmp_path / "two" / "b") == digest(Path(items[1].uri))
    assert len(entries(tmp_path)) == 1
    (tmp_path / "one" / "a").unlink()  # the job has ended
    assert fetch(store, cache, tmp_path / "three", items[1]) == 0
    assert fetch(store, cache, tmp_path / "four", items[1]) == 100 * KIB


def test_a_channel_that_is_larger_than_the_cache_fills_it_and_keeps_what_it_has(
    store: CountingStore, tmp_path: Path
) -> None:
    cache = ObjectCache(tmp_path / "cache", 250 * KIB)
    items = [make(tmp_path, str(n), random.Random(n).randbytes(100 * KIB)) for n in range(4)]
    assert fetch(store, cache, tmp_path / "one", *items) == 0
    for name in ("two", "three"):
        assert fetch(store, cache, tmp_path / name, *items) == 200 * KIB


def test_a_full_disk_is_helped_by_what_the_cache_holds(
    store: CountingStore, cache, item: ObjectInfo, tmp_path: Path
) -> None:
    fetch(store, cache, tmp_path / "one", make(tmp_path, "old", b"x" * 1000))
    fails = iter([OSError(errno.ENOSPC, "no space left")])

    def fill_up(_start: int) -> None:
        for error in fails:
            raise error

    store.before = fill_up
    fetch(store, ObjectCache(tmp_path / "cache", 160 * KIB), tmp_path / "two", item)
    assert digest(tmp_path / "two" / "object") == digest(Path(item.uri))


def test_a_cache_of_no_size_keeps_nothing(store: CountingStore, item: ObjectInfo, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert fetch(store, ObjectCache(tmp_path / "cache", 0), tmp_path / name, item) == 0
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def copying(store: CountingStore) -> Transfers:
    return Transfers(store)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "crc32"])
def test_bytes_are_checked_by_the_checksum_that_the_store_tells(
    store: CountingStore, copying: Transfers, item: ObjectInfo, tmp_path: Path, algorithm: str
) -> None:
    adder = transfers.Adder(algorithm)
    adder.add(CONTENT)
    store.checksum = adder.checksum()
    found = copying.fetch(PinnedObject(item.uri, item.size_bytes), tmp_path / "copy", lambda _: None)
    assert found == store.checksum
    store.checksum = Checksum(algorithm, "0" * len(found.value))
    with pytest.raises(ChecksumMismatch, match=f"object came with other bytes .*{algorithm} {found.value}"):
        copying.fetch(PinnedObject(item.uri, item.size_bytes), tmp_path / "copy", lambda _: None)


@pytest.mark.parametrize("size", [150 * KIB, 140 * KIB])
def test_an_object_that_changes_between_two_ranges_is_never_mixed(
    store: CountingStore, copying: Transfers, item: ObjectInfo, tmp_path: Path, size: int
) -> None:
    def change(start: int) -> None:
        if start:
            new = Path(item.uri).with_name(f"new-{start}")  # several ranges come at once
            new.write_bytes(CONTENT[::-1][:size])
            new.replace(item.uri)

    store.before = change
    with pytest.raises(ObjectChanged, match="object changed"):
        copying.fetch(PinnedObject(item.uri, item.size_bytes), tmp_path / "copy", lambda _: None)


def test_a_failure_ends_the_other_copies_with_its_own_reason(
    store: CountingStore, copying: Transfers, item: ObjectInfo, tmp_path: Path
) -> None:
    copying.give_up(StorageError("the first to fail"))
    with pytest.raises(StorageError, match="the first to fail"):
        copying.fetch(PinnedObject(item.uri, item.size_bytes), tmp_path / "copy", lambda _: None)


def test_an_empty_object_comes_as_an_empty_file(store: CountingStore, cache, tmp_path: Path) -> None:
    fetch(store, cache, tmp_path / "one", make(tmp_path, "nothing", b""))
    assert (tmp_path / "one" / "nothing").read_bytes() == b""
