"""Objects copied to files by many ranges at once, all of one version, and checked against what their store tells.

Ranges are brought by `ring.py`; one that breaks goes on where it was (`ObjectStore.fill`). What becomes of the file is
whoever asked's matter.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from raymaker.actors.channels.ring import Buffers, Ring, spans
from raymaker.actors.errors import ChecksumMismatch, ObjectChanged
from raymaker.actors.ranges import MD5_TAG, Checksum, Facts, FilePart
from raymaker.actors.storage import ObjectStore, PinnedObject
from raymaker.actors.store_errors import changed, explain

BUFFER_BYTES = 64 * 1024 * 1024
"""The memory that the ranges of all copies share."""
SMALL_BYTES = 1024 * 1024
"""Objects that are no larger come in one range, in memory of their own."""
LOOKED_UP_BYTES = 8 * 1024 * 1024
"""Objects that are larger are looked up before they are read: it hardly counts, and says what to add up."""
PIECE_BYTES = 1024 * 1024
COPIED_BYTES = 32 * 1024 * 1024
CRC32 = "crc32"
FICLONE = 0x40049409
"""ioctl: let two files share their blocks until one of them is written to, where the filesystem can."""

Heard = Callable[[int], None]
"""Hears of bytes that have come."""


class Transfers:
    """Copies objects; threads may share it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._buffers = Buffers(BUFFER_BYTES)
        self._failure: Exception | None = None
        self._rings: set[Ring] = set()
        self._lock = threading.Lock()

    def give_up(self, reason: Exception) -> None:
        """End what is under way, since one of the copies has failed: the others then raise its reason."""
        with self._lock:
            self._failure = self._failure or reason
            rings = list(self._rings)
        for ring in rings:
            ring.abort()

    def fetch(self, item: PinnedObject, target: Path, on_bytes: Heard, facts: Facts | None = None) -> Checksum:
        """Write all of an object to the file `target`, made anew, and return the checksum that its bytes have.

        `facts` are what the store has told of it, where it was asked already. Raises StorageError, ObjectChanged,
        ChecksumMismatch; part of the file may be there then.
        """
        try:
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                if facts is None and item.size_bytes > LOOKED_UP_BYTES:
                    facts = self._store.look(item.uri)
                if facts is not None:
                    item.agree(facts.version, facts.size_bytes)
                found = self._read(item, descriptor, _algorithm_to_use(facts), on_bytes)
                self._check(item, descriptor, facts, found)
                return found
            finally:
                os.close(descriptor)
        except ObjectChanged as error:
            raise changed(item.uri) from error
        except OSError as error:
            raise explain(error, f"download {item.uri} to", str(target)) from error

    def _read(self, item: PinnedObject, descriptor: int, algorithm: str | None, on_bytes: Heard) -> Checksum:
        """Write all bytes in their order, and add them up."""
        adder: Adder | None = None
        written = 0
        for piece in self._pieces(item):
            adder = adder or Adder(algorithm or _algorithm_of(item.version))
            adder.add(piece)
            written += _write_all(descriptor, piece)
            on_bytes(len(piece))
        if self._failure is not None and written < item.size_bytes:
            raise self._failure
        return (adder or Adder(CRC32)).checksum()

    def _pieces(self, item: PinnedObject) -> Iterator[memoryview]:
        """Yield an object's bytes in their order: a small one at once, others as several ranges bring them."""
        if item.size_bytes <= SMALL_BYTES:
            content = memoryview(bytearray(item.size_bytes))
            self._store.fill(item, 0, content, lambda _: None, lambda: self._failure is not None)
            if self._failure is None:
                yield content
            return
        ring = Ring(self._store, spans(item, self._buffers.span_bytes), self._buffers)
        with self._lock:
            self._rings.add(ring)
        try:
            if self._failure is None:
                yield from (view for _, view in ring)
        finally:
            ring.close()
            with self._lock:
                self._rings.remove(ring)

    def _check(self, item: PinnedObject, descriptor: int, facts: Facts | None, found: Checksum) -> None:
        """Compare with what the store tells; where it was not asked yet, only what its version seems to say."""
        if facts is None:
            tag = MD5_TAG.fullmatch(item.version or "")
            if item.size_bytes == 0 or (tag is not None and found == Checksum("md5", tag[1])):
                return
            facts = self._store.look(item.uri)
            item.agree(facts.version, facts.size_bytes)
        if facts.checksum is None:
            return
        if facts.checksum.algorithm != found.algorithm:
            found = file_checksum(descriptor, facts.checksum.algorithm)
        if facts.checksum != found:
            raise ChecksumMismatch(
                f"{item.uri} came with other bytes than its store says ({found.algorithm} {found.value} instead of "
                f"{facts.checksum.value}): the network or the store damages data; store the object anew if this goes on"
            )


class Adder:
    """Adds bytes up to a checksum of this algorithm."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._sum = 0
        self._hash: Hash | None = None
        if algorithm != CRC32:
            self._hash = hashlib.new(algorithm, usedforsecurity=False)

    def add(self, piece: bytes | memoryview) -> None:
        """Take the next bytes."""
        if self._hash is not None:
            self._hash.update(piece)
        else:
            self._sum = zlib.crc32(piece, self._sum)

    def checksum(self) -> Checksum:
        """The checksum of all bytes so far."""
        return Checksum(self._algorithm, f"{self._sum:08x}" if self._hash is None else self._hash.hexdigest())


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take bytes."""

    def hexdigest(self) -> str:
        """Give the digest."""


def file_checksum(descriptor: int, algorithm: str) -> Checksum:
    """Add up an open file."""
    adder, start = Adder(algorithm), 0
    while piece := os.pread(descriptor, PIECE_BYTES, start):
        adder.add(piece)
        start += len(piece)
    return adder.checksum()


def copy_object(item: PinnedObject, source: str, target: Path, on_bytes: Heard) -> None:
    """Copy an object that is a file of this machine, `source`. Raises StorageError, ObjectChanged."""
    try:
        with contextlib.closing(FilePart(source, 0)) as part, target.open("wb") as copy:
            item.agree(part.version, part.size_bytes)
            copy_file(part.descriptor, copy.fileno(), item.size_bytes, on_bytes)
            part.check()
    except ObjectChanged as error:
        raise changed(item.uri) from error
    except OSError as error:
        raise explain(error, f"copy {item.uri} to", str(target)) from error


def copy_file(source: int, target: int, size_bytes: int, on_bytes: Heard) -> None:
    """Copy one open file to another that is empty, on disk only where the filesystem cannot let them share it.

    Raises ObjectChanged where it is shorter, OSError.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        done = 0
        while done < size_bytes:
            count = os.sendfile(target, source, done, min(COPIED_BYTES, size_bytes - done))
            if not count:
                raise ObjectChanged("it grew shorter") from None
            done += count
            on_bytes(count)
    else:
        on_bytes(size_bytes)


def _write_all(descriptor: int, view: memoryview) -> int:
    """Write all of `view` behind what was written before; returns how much that is."""
    size_bytes = len(view)
    while view:
        view = view[os.write(descriptor, view) :]
    return size_bytes


def _algorithm_to_use(facts: Facts | None) -> str | None:
    """What to add up, None where the version will say it."""
    if facts is None:
        return None
    return facts.checksum.algorithm if facts.checksum is not None else CRC32


def _algorithm_of(version: str | None) -> str:
    """What a version may be the checksum of."""
    return "md5" if MD5_TAG.fullmatch(version or "") else CRC32
