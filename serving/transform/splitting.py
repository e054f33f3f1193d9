"""An object cut into pieces of whole records, each small enough to be sent: a stream in, pieces out, nothing else kept.

Not a byte is changed, so that the pieces put together are the object again. Only the places where records end are
found: lines (SplitType Line; empty ones are no records) and frames of RecordIO.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from raymaker.serving.transform.errors import RecordError
from raymaker.serving.transform.spec import MIB

RECORD_IO_MAGIC = 0xCED7230A
NEWLINE, RETURN = ord("\n"), ord("\r")
FRAME = struct.Struct("<II")
LENGTH_BITS = 29
"""Of a frame's second word; the three above say which part of a record the frame is."""
WHOLE, LAST = 0, 3


@dataclass(frozen=True)
class Piece:
    """Some whole records of an object, as they lie there; `first` counts from 1."""

    data: bytes
    first: int
    count: int

    @property
    def name(self) -> str:
        """Say which records these are."""
        return f"record {self.first}" if self.count == 1 else f"records {self.first} to {self.first + self.count - 1}"


def split(source: IO[bytes], split_type: str, strategy: str, limit_bytes: int) -> Iterator[Piece]:
    """Cut an object into pieces of one record, or of as many as `limit_bytes` hold. Raises RecordError.

    Without a split type the object is one record. An empty object has none.
    """
    if split_type == "None":
        parts = _whole(source, limit_bytes)
    elif split_type == "Line":
        parts = _lines(source, limit_bytes) if strategy == "SingleRecord" else _blocks_of_lines(source, limit_bytes)
    else:
        records = _frames(source, limit_bytes)
        parts = ((record, 1) for record in records) if strategy == "SingleRecord" else _gather(records, limit_bytes)
    first = 1
    for data, count in parts:
        yield Piece(data, first, count)
        first += count


def _whole(source: IO[bytes], limit_bytes: int) -> Iterator[tuple[bytes, int]]:
    data = source.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise _too_large("the object", limit_bytes, "raise MaxPayloadInMB, or split it with SplitType")
    if data:
        yield data, 1


def _lines(source: IO[bytes], limit_bytes: int) -> Iterator[tuple[bytes, int]]:
    while line := source.readline(limit_bytes + 1):
        if len(line) > limit_bytes:
            raise _too_large("a line", limit_bytes, "raise MaxPayloadInMB")
        if line.strip(b"\r\n"):
            yield line, 1


def _blocks_of_lines(source: IO[bytes], limit_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Read a little more than may be sent, and send it up to where its last line ends."""
    rest = b""
    while True:
        wanted_bytes = limit_bytes + 1 - len(rest)
        piece = source.read(wanted_bytes)
        data = rest + piece
        is_end = len(piece) < wanted_bytes
        end = len(data) if is_end else data.rfind(b"\n", 0, limit_bytes) + 1
        if end == 0 and not is_end:
            raise _too_large("a line", limit_bytes, "raise MaxPayloadInMB")
        block, rest = data[:end], data[end:]
        if count := count_lines(block):
            yield block, count
        if is_end:
            return


def count_lines(data: bytes) -> int:
    """Count the lines that are not empty."""
    characters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(characters == NEWLINE)
    lengths = np.diff(ends, prepend=-1) - 1
    is_empty = (lengths == 0) | ((lengths == 1) & (characters[ends - 1] == RETURN))
    rest = data[ends[-1] + 1 :] if len(ends) else data
    return len(ends) - int(np.count_nonzero(is_empty)) + (rest not in {b"", b"\r"})


def _frames(source: IO[bytes], limit_bytes: int) -> Iterator[bytes]:
    """Read RecordIO record by record, each with its frames: magic, length, data, padding to four bytes."""
    record = b""
    while head := source.read(FRAME.size):
        magic, word = FRAME.unpack(head) if len(head) == FRAME.size else (0, 0)
        if magic != RECORD_IO_MAGIC:
            raise RecordError("the object is no RecordIO: a frame does not begin with its magic number")
        length = word & ((1 << LENGTH_BITS) - 1)
        padded = length + -length % 4
        if len(record) + FRAME.size + padded > limit_bytes:
            raise _too_large("a record", limit_bytes, "raise MaxPayloadInMB")
        data = source.read(padded)
        if len(data) < padded:
            raise RecordError("the object ends within a frame of RecordIO: it was not written whole")
        record += head + data
        if word >> LENGTH_BITS in {WHOLE, LAST}:
            yield record
            record = b""
    if record:
        raise RecordError("the object ends within a record of RecordIO: it was not written whole")


def _gather(records: Iterator[bytes], limit_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Put together as many records as fit."""
    held: list[bytes] = []
    held_bytes = 0
    for record in records:
        if held and held_bytes + len(record) > limit_bytes:
            yield b"".join(held), len(held)
            held, held_bytes = [], 0
        held.append(record)
        held_bytes += len(record)
    if held:
        yield b"".join(held), len(held)


def _too_large(what: str, limit_bytes: int, remedy: str) -> RecordError:
    return RecordError(f"{what} is larger than a payload may be ({limit_bytes / MIB:g} MB): {remedy}")
