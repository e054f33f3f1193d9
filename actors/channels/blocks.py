"""Reads of objects at any place, through blocks in memory of a bounded size that are filled ahead of readers in order.

Whoever reads in order gets blocks that grow, and several of them ahead; whoever jumps gets small ones. Knows nothing of
filesystems: `fast_server.py` shows files.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from raymaker.actors.channels.ring import LARGEST_SPAN_BYTES, MOST_THREADS_COUNT
from raymaker.actors.errors import WorkError
from raymaker.actors.storage import ObjectStore, PinnedObject

FIRST_BLOCK_BYTES = 256 * 1024
"""What a reader gets that comes from nowhere."""
GROWTH = 4
"""How much larger the next block is for one that goes on."""
BLOCKS_COUNT = 8
"""How many of the largest blocks share the memory."""


class Blocks:
    """The memory that all objects share. Threads may share it."""

    def __init__(self, store: ObjectStore, total_bytes: int) -> None:
        self._store = store
        self._total_bytes = max(total_bytes, BLOCKS_COUNT * FIRST_BLOCK_BYTES)
        self._largest_bytes = min(LARGEST_SPAN_BYTES, self._total_bytes // BLOCKS_COUNT)
        self._held_bytes = 0
        self._held: dict[_Block, None] = {}
        """All blocks, the one first that was used longest ago."""
        self._changed = threading.Condition()
        self._threads = ThreadPoolExecutor(MOST_THREADS_COUNT, "fast-file")

    def read(self, reader: Reader, start: int, size_bytes: int) -> memoryview | bytes:
        """Read bytes of an object, fewer only at its end. Raises StorageError, ObjectChanged."""
        stop = min(start + size_bytes, reader.source.item.size_bytes)
        pieces: list[memoryview] = []
        while start < stop:
            with self._changed:
                block = self._block_at(reader, start)
                end = min(stop, block.stop)
                while not block.has(end) and block.error is None:
                    self._changed.wait()
                if block.error is not None:
                    raise block.error
                block.is_read = True
            pieces.append(block.view[start - block.start : end - block.start])
            start = end
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def drop(self, source: ReadObject) -> None:
        """Let go of an object that nobody reads any more."""
        with self._changed:
            for block in list(source.blocks):
                if block.is_at_rest:
                    self._forget(block)

    def close(self) -> None:
        """End, after the last read."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def held_bytes(self) -> int:
        """How much memory is in use."""
        return self._held_bytes

    def _block_at(self, reader: Reader, start: int) -> _Block:
        """Find or begin the block that has a byte, and those after it where its reader goes on in order."""
        while (block := reader.source.block_at(start)) is None:
            if start != reader.ahead:
                reader.jump(start)
            if self._begin(reader, start, is_needed=True) is None:
                self._changed.wait()
        self._held[block] = self._held.pop(block)
        while reader.wants_more(start, self._total_bytes // 2):
            known = reader.source.block_at(reader.ahead)
            if known is not None:
                reader.ahead = known.stop
            elif self._begin(reader, reader.ahead, is_needed=False) is None:
                break
        return block

    def _begin(self, reader: Reader, start: int, *, is_needed: bool) -> _Block | None:
        """Have bytes fetched from `start` on, up to what is known already; None while there is no memory for them."""
        source = reader.source
        later = [block.start for block in source.blocks if block.start > start]
        stop = min([start + min(reader.block_bytes, self._largest_bytes), source.item.size_bytes, *later])
        for old in list(self._held):
            if self._held_bytes + stop - start <= self._total_bytes:
                break
            if old.is_at_rest and (is_needed or old.is_read):
                self._forget(old)
        if self._held_bytes + stop - start > self._total_bytes:
            return None
        block = _Block(source, start, stop)
        self._held[block] = None
        self._held_bytes += stop - start
        source.blocks.append(block)
        reader.went_to(stop)
        self._threads.submit(self._fill, block)
        return block

    def _fill(self, block: _Block) -> None:
        def heard(filled: int) -> None:
            with self._changed:
                block.filled = filled
                self._changed.notify_all()

        try:
            self._store.fill(block.source.item, block.start, block.view, heard)
        except WorkError as error:
            self._fail(block, error)
        except Exception as error:
            self._fail(block, WorkError(f"{block.source.item.uri} could not be read: {error!r}"))

    def _fail(self, block: _Block, error: WorkError) -> None:
        """Tell those who wait for a block; whoever comes later has it fetched anew."""
        with self._changed:
            block.error = error
            self._forget(block)
            self._changed.notify_all()

    def _forget(self, block: _Block) -> None:
        self._held.pop(block)
        self._held_bytes -= block.stop - block.start
        block.source.blocks.remove(block)


class ReadObject:
    """An object that is read, by any number of readers."""

    def __init__(self, item: PinnedObject) -> None:
        self.item = item
        self.blocks: list[_Block] = []
        self.readers_count = 0

    def block_at(self, start: int) -> _Block | None:
        """The block that has a byte, or will have it."""
        return next((block for block in self.blocks if block.start <= start < block.stop), None)


class Reader:
    """One who reads an object: where it began to read in order, and where the blocks that it needs next end."""

    def __init__(self, source: ReadObject) -> None:
        self.source = source
        self.jump(0)

    def jump(self, start: int) -> None:
        """Begin anew somewhere else."""
        self.began = self.ahead = start
        self.block_bytes = FIRST_BLOCK_BYTES

    def went_to(self, stop: int) -> None:
        """One block more has begun, up to `stop`; the next one is larger."""
        self.ahead = stop
        self.block_bytes *= GROWTH

    def wants_more(self, start: int, most_bytes: int) -> bool:
        """Tell whether more should come, as it is at `start`: the more it has read in order, the further ahead."""
        in_order_bytes = start - self.began
        if in_order_bytes <= 0 or self.ahead >= self.source.item.size_bytes:
            return False
        return 0 <= self.ahead - start < min(GROWTH * in_order_bytes, most_bytes)


class _Block:
    """Bytes of an object, of which the first `filled` are here."""

    def __init__(self, source: ReadObject, start: int, stop: int) -> None:
        self.source = source
        self.start = start
        self.stop = stop
        self.view = memoryview(bytearray(stop - start))
        self.filled = 0
        self.is_read = False
        self.error: WorkError | None = None

    def has(self, end: int) -> bool:
        """Tell whether the bytes before `end` are here."""
        return self.start + self.filled >= end

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is on its way to it."""
        return self.has(self.stop)
