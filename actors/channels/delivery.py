"""One pass over a streamed channel: its records' bytes, wrapped and unpacked as asked, brought to a pipe.

Files of this machine go into the pipe without being copied, everything else through `ring.py`. Each object is of one
version, the one that was seen first, through all passes.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Self, cast

from raymaker.actors.channels.entries import Record, Source
from raymaker.actors.channels.fifo import PipeWriter
from raymaker.actors.channels.recordio import header, padding
from raymaker.actors.channels.ring import Ring, Step, spans
from raymaker.actors.channels.unpacking import Unpacker
from raymaker.actors.errors import ObjectChanged
from raymaker.actors.ranges import FilePart
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, PinnedObject
from raymaker.actors.store_errors import changed, explain

LOOKUP_THREADS = 8
LOOKED_UP_COUNT = 32
"""How many objects are looked up before they are needed."""
SPOOL_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Form:
    """What a channel does to its objects."""

    is_packed: bool
    is_wrapped: bool

    @classmethod
    def of(cls, channel: ChannelSpec) -> Form:
        """As its request says."""
        return cls(channel.compression == "Gzip", channel.record_wrapper == "RecordIO")


class Pins:
    """The objects of a channel as they were seen first. Threads may share it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._found: dict[str, PinnedObject] = {}
        self._lock = threading.Lock()

    def find(self, source: Source) -> PinnedObject:
        """Look an object up, in the store where its size is not known yet. Raises StorageError."""
        with self._lock:
            known = self._found.get(source.uri)
        if known is not None:
            return known
        size_bytes = self._store.size(source.uri) if source.size_bytes is None else source.size_bytes
        with self._lock:
            return self._found.setdefault(source.uri, PinnedObject(source.uri, size_bytes))


def plan(records: Iterable[Record], pins: Pins, form: Form, span_bytes: int) -> Iterator[Step]:
    """Say what is read and written, step by step. Raises StorageError, UnsupportedError.

    Packed objects are wrapped later, once they are unpacked: their length is not known before.
    """
    for record in _look_ahead(records, pins):
        if isinstance(record, bytes):
            yield from _wrapped(record, form)
            continue
        is_wrapped = form.is_wrapped and not (form.is_packed and record.size_bytes)
        if is_wrapped:
            yield header(record.size_bytes, record.uri)
        yield from spans(record, span_bytes)
        if is_wrapped:
            yield padding(record.size_bytes)


def deliver(ring: Ring, form: Form, scratch: Path, pipe: PipeWriter) -> None:
    """Write what a ring reads. Raises StorageError, ReaderLeft, Aborted."""
    unpacking: _Unpacking | None = None
    try:
        for step, view in ring:
            if isinstance(step, bytes) or not form.is_packed:
                pipe.write(view)
                continue
            unpacking = unpacking or _Unpacking(step.item, scratch if form.is_wrapped else None, pipe)
            if unpacking.feed(view):
                unpacking = None
    finally:
        if unpacking is not None:
            unpacking.close()
    pipe.flush()


def hand_over(store: ObjectStore, records: Iterable[Source], pins: Pins, form: Form, pipe: PipeWriter) -> None:
    """Write files of this machine. Raises StorageError, ReaderLeft, Aborted.

    What is spliced are the file's own pages: they count as delivered once the reader has them and the file is found
    unchanged, and the pass does not end before.
    """
    with _Spliced(pipe) as spliced:
        for record in records:
            item = pins.find(record)
            if form.is_wrapped:
                pipe.write(header(item.size_bytes, item.uri))
            spliced.hand_over(item, str(store.local_path(item.uri)))
            if form.is_wrapped:
                pipe.write(padding(item.size_bytes))
        spliced.finish()


class _Spliced:
    """Files whose pages may still lie in the pipe."""

    def __init__(self, pipe: PipeWriter) -> None:
        self._pipe = pipe
        self._open: collections.deque[tuple[int, str, FilePart]] = collections.deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Check what the reader may have had, also where it left."""
        self._let_go(len(self._open))

    def hand_over(self, item: PinnedObject, path: str) -> None:
        """Write a file."""
        try:
            part = FilePart(path, 0)
            self._open.append((sys.maxsize, item.uri, part))
            item.agree(part.version, part.size_bytes)
            self._pipe.splice(part.descriptor, item.size_bytes)
        except ObjectChanged as error:
            raise changed(item.uri) from error
        except OSError as error:
            raise explain(error, "read", item.uri) from error
        self._open[-1] = (self._pipe.written_bytes, item.uri, part)
        taken_bytes = self._pipe.written_bytes - self._pipe.unread_bytes()
        self._let_go(sum(end <= taken_bytes for end, _, _ in self._open))

    def finish(self) -> None:
        """Wait until the reader has all of it."""
        self._pipe.drain()

    def _let_go(self, count: int) -> None:
        broken: str | None = None
        for _ in range(count):
            _, uri, part = self._open.popleft()
            with contextlib.closing(part):
                try:
                    part.check()
                except ObjectChanged:
                    broken = uri
        if broken is not None:
            raise changed(broken)


class _Unpacking:
    """One packed object on its way. To be wrapped, it is unpacked in `scratch` first: its length comes before it."""

    def __init__(self, item: PinnedObject, scratch: Path | None, pipe: PipeWriter) -> None:
        self._item = item
        self._pipe = pipe
        self._unpacker = Unpacker(item.uri)
        self._spool: IO[bytes] | None = None
        if scratch is not None:
            self._spool = cast("IO[bytes]", tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=str(scratch)))  # noqa: SIM115
        self._fed_bytes = 0

    def feed(self, packed: memoryview) -> bool:
        """Take the next bytes; True once the object is complete. Raises StorageError, UnsupportedError."""
        for piece in self._unpacker.feed(packed):
            if self._spool is None:
                self._pipe.write(piece)
            else:
                header(self._spool.tell() + len(piece), self._item.uri)  # refuses what is too much for one record
                self._spool.write(piece)
        self._fed_bytes += len(packed)
        if self._fed_bytes < self._item.size_bytes:
            return False
        self._unpacker.finish()
        if self._spool is not None:
            self._write_record(self._spool)
        self.close()
        return True

    def close(self) -> None:
        """Let go of what was unpacked."""
        if self._spool is not None:
            self._spool.close()

    def _write_record(self, spool: IO[bytes]) -> None:
        size_bytes = spool.tell()
        self._pipe.write(header(size_bytes, self._item.uri))
        spool.seek(0)
        while piece := spool.read(SPOOL_BYTES):
            self._pipe.write(piece)
        self._pipe.write(padding(size_bytes))


def _wrapped(value: bytes, form: Form) -> Iterator[bytes]:
    if form.is_wrapped:
        yield header(len(value), "a value of an augmented manifest")
    yield value
    if form.is_wrapped:
        yield padding(len(value))


def _look_ahead(records: Iterable[Record], pins: Pins) -> Iterator[bytes | PinnedObject]:
    """Look objects up, several at once where the store must be asked, and yield everything in order."""
    waiting: collections.deque[Callable[[], bytes | PinnedObject]] = collections.deque()
    with contextlib.ExitStack() as stack:
        threads: ThreadPoolExecutor | None = None
        for record in records:
            if isinstance(record, bytes):
                waiting.append(partial(bytes, record))
            elif record.size_bytes is not None:
                waiting.append(partial(pins.find, record))
            else:
                if threads is None:
                    threads = ThreadPoolExecutor(LOOKUP_THREADS, "stream-lookup")
                    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
                waiting.append(threads.submit(pins.find, record).result)
            if len(waiting) > LOOKED_UP_COUNT:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
