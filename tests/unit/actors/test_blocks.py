"""Blocks of objects that are read at any place: what is fetched, how far ahead, in how much memory, and what fails."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from raymaker.actors.channels.blocks import FIRST_BLOCK_BYTES, Blocks, Reader, ReadObject
from raymaker.actors.errors import ObjectChanged, StorageError
from raymaker.actors.storage import PinnedObject, StoreConfig
from support.streaming import DistantStore, until

KIB, MIB = 1024, 1024 * 1024
CONTENT = random.Random(0).randbytes(20 * MIB)
TOTAL_BYTES = 8 * MIB


class CountingStore(DistantStore):
    """Counts what is read, and may be told to do something before."""

    def __init__(self) -> None:
        super().__init__(StoreConfig(retry_s=0))
        self.spans: list[tuple[int, int]] = []
        self.before: Callable[[int], None] = lambda _start: None

    @property
    def read_bytes_count(self) -> int:
        return sum(size for _, size in self.spans)

    def fill(self, item, start, view, on_bytes, is_over=lambda: False) -> None:
        self.spans.append((start, len(view)))
        self.before(start)
        super().fill(item, start, view, on_bytes, is_over)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def blocks(store: CountingStore) -> Iterator[Blocks]:
    with closing(Blocks(store, TOTAL_BYTES)) as blocks:
        yield blocks


@pytest.fixture
def source(tmp_path: Path) -> ReadObject:
    (tmp_path / "object").write_bytes(CONTENT)
    return ReadObject(PinnedObject(str(tmp_path / "object"), len(CONTENT)))


def test_reading_in_order_gives_all_bytes_once_from_blocks_that_grow_in_bounded_memory(
    store: CountingStore, blocks: Blocks, source: ReadObject
) -> None:
    reader, most = Reader(source), 0
    for start in range(0, len(CONTENT), 128 * KIB):
        assert blocks.read(reader, start, 128 * KIB) == CONTENT[start : start + 128 * KIB]
        most = max(most, blocks.held_bytes)
    assert blocks.read(reader, len(CONTENT), 128 * KIB) == b""
    assert store.read_bytes_count == len(CONTENT)
    assert store.spans[0] == (0, FIRST_BLOCK_BYTES)
    assert max(size for _, size in store.spans) == TOTAL_BYTES // 8
    assert most <= TOTAL_BYTES


def test_whoever_goes_on_in_order_finds_what_comes_next_begun_already(
    store: CountingStore, blocks: Blocks, source: ReadObject
) -> None:
    reader = Reader(source)
    for start in range(0, 2 * MIB, 128 * KIB):
        blocks.read(reader, start, 128 * KIB)
    until(lambda: max(start + size for start, size in store.spans) >= 5 * MIB, "blocks ahead are fetched")


def test_reads_here_and_there_fetch_little_more_than_what_is_asked_for(
    store: CountingStore, blocks: Blocks, source: ReadObject
) -> None:
    reader, places = Reader(source), random.Random(1)
    for _ in range(30):
        start = places.randrange(len(CONTENT) - 4 * KIB)
        assert blocks.read(reader, start, 4 * KIB) == CONTENT[start : start + 4 * KIB]
    assert store.read_bytes_count <= 30 * FIRST_BLOCK_BYTES


def test_many_readers_of_one_object_at_once_each_get_their_bytes(
    store: CountingStore, blocks: Blocks, source: ReadObject
) -> None:
    def read(number: int) -> bool:
        reader, found = Reader(source), []
        for start in range(number * 2 * MIB, (number + 1) * 2 * MIB, 100 * KIB):
            size = min(100 * KIB, (number + 1) * 2 * MIB - start)
            found.append(bytes(blocks.read(reader, start, size)))
        return b"".join(found) == CONTENT[number * 2 * MIB : (number + 1) * 2 * MIB]

    with ThreadPoolExecutor(10) as threads:
        assert all(threads.map(read, range(10)))
    assert blocks.held_bytes <= TOTAL_BYTES


def test_a_read_across_the_end_of_a_block_is_put_together(blocks: Blocks, source: ReadObject) -> None:
    start = FIRST_BLOCK_BYTES - 10
    reader = Reader(source)
    blocks.read(reader, 0, 10)
    assert blocks.read(reader, start, 3 * MIB) == CONTENT[start : start + 3 * MIB]


def test_who_fails_is_told_why_and_the_next_read_tries_again(
    store: CountingStore, blocks: Blocks, source: ReadObject
) -> None:
    def fail(_start: int) -> None:
        raise StorageError("the store is away")

    reader = Reader(source)
    store.before = fail
    with pytest.raises(StorageError, match="away"):
        blocks.read(reader, 0, 10)
    assert blocks.held_bytes == 0
    store.before = lambda _start: None
    assert blocks.read(reader, 0, 10) == CONTENT[:10]


def test_an_object_that_changes_is_never_mixed(blocks: Blocks, source: ReadObject) -> None:
    reader, path = Reader(source), Path(source.item.uri)
    blocks.read(reader, 0, 10)
    path.with_name("new").write_bytes(CONTENT[::-1])
    path.with_name("new").replace(path)
    with pytest.raises(ObjectChanged, match="object changed"):
        blocks.read(reader, 10 * MIB, 10)


def test_what_nobody_reads_any_more_is_let_go(blocks: Blocks, source: ReadObject) -> None:
    blocks.read(Reader(source), 0, FIRST_BLOCK_BYTES)
    blocks.drop(source)
    assert blocks.held_bytes == 0


def test_whoever_finds_all_memory_under_way_waits_for_it(store: CountingStore, source: ReadObject) -> None:
    gate = threading.Event()
    store.before = lambda _start: gate.wait(60)
    with closing(Blocks(store, 0)) as blocks, ThreadPoolExecutor(12) as threads:
        most = blocks._total_bytes
        reads = [threads.submit(blocks.read, Reader(source), place * MIB, 10) for place in range(12)]
        until(lambda: len(store.spans) == 8, "the memory is full of what is under way")
        assert blocks.held_bytes == most
        gate.set()
        for place, read in enumerate(reads):
            assert read.result() == CONTENT[place * MIB :][:10]
