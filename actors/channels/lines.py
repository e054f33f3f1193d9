"""Records that are lines of text, CSV and JSON lines: counted, and a range of them copied byte for byte.

No value is parsed or written anew: only the places where records end are found. Quotes follow RFC 4180, so a record of
CSV may hold newlines. Empty lines are no records; they go with the record after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, BinaryIO

from raymaker.actors.errors import StorageError, UnsupportedError

BLOCK_BYTES = 4 * 1024 * 1024
RECORD_LIMIT_BYTES = 64 * 1024 * 1024
"""No honest record is longer; it would have to be held in memory."""
QUOTE, NEWLINE = b'"', b"\n"
EMPTY = (b"", b"\r")


class LineRecords:
    """One object of lines. `opened` opens its text, which can seek, at the start; `where` names it in errors.

    With `quoted` the lines are CSV's. `is_header` tells whether the first record is one, which then heads every part.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[IO[bytes]]],
        where: str,
        *,
        quoted: bool = False,
        is_header: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self._opened = opened
        self._where = where
        self._quoted = quoted
        self._is_header = is_header
        self._header = b""
        self._blocks: list[_Block] = []

    def count(self, on_bytes: Callable[[int], None]) -> int:
        """Read all of it once, to count its records and to note where blocks of them lie."""
        self._blocks = []
        count = position = 0
        with self._opened() as source:
            for data in self._whole_records(source):
                on_bytes(len(data))
                if position == 0:
                    self._header = self._find_header(data)
                    position = len(self._header)
                records = data[len(self._header) :] if not self._blocks else data
                block = _Block(position, len(records), count, count_records(records, quoted=self._quoted))
                self._blocks.append(block)
                position, count = position + block.size_bytes, count + block.count
        return count

    def copy(self, wanted: range, target: BinaryIO) -> None:
        """Write the header and the wanted records, once they were counted; reads little more than those."""
        target.write(self._header)
        blocks = [it for it in self._blocks if it.first < wanted.stop and wanted.start < it.first + it.count]
        with self._opened() as source:
            source.seek(blocks[0].start)
            for block in blocks:
                data = source.read(block.size_bytes)
                start = end_of_records(data, wanted.start - block.first, quoted=self._quoted)
                is_last = wanted.stop < block.first + block.count
                stop = end_of_records(data, wanted.stop - block.first, quoted=self._quoted) if is_last else None
                target.write(data[start:stop])

    def _whole_records(self, source: IO[bytes]) -> Iterator[bytes]:
        """Yield the text in blocks that end where a record does."""
        rest = b""
        while piece := source.read(BLOCK_BYTES):
            data = rest + piece
            end = last_end_of_record(data, quoted=self._quoted)
            if end:
                yield data[:end]
            rest = data[end:]
            if len(rest) > RECORD_LIMIT_BYTES:
                raise StorageError(
                    f"{self._where} has a record of more than {RECORD_LIMIT_BYTES} bytes: {self._hint()}"
                )
        if self._quoted and rest.count(QUOTE) % 2:
            raise StorageError(f"{self._where} ends within quotes: {self._hint()}")
        if rest:
            yield rest

    def _find_header(self, data: bytes) -> bytes:
        if b"\0" in data:
            raise UnsupportedError(
                f"{self._where} cannot be split by ShardBy Record: it holds zero bytes, so it is no text in UTF-8; "
                "convert it, or use ShardBy Object"
            )
        first = data[: end_of_records(data, 1, quoted=self._quoted)]
        return first if self._is_header(first) else b""

    def _hint(self) -> str:
        if self._quoted:
            return "write quotes within a quoted field twice, and none in a field without, or use ShardBy Object"
        return "end each record with a newline, or use ShardBy Object"


@dataclass(frozen=True)
class _Block:
    """Whole records that lie together, a few MiB of them. `first` is the number of the first one, from 0."""

    start: int
    size_bytes: int
    first: int
    count: int


def count_records(data: bytes, *, quoted: bool) -> int:
    """Count the records in a block of whole ones."""
    if quoted and QUOTE in data:
        data = QUOTE.join(data.split(QUOTE)[::2])  # without what stands in quotes
    if data.startswith((b"\n", b"\r\n")) or b"\n\n" in data or b"\n\r\n" in data:
        return sum(line not in EMPTY for line in data.split(NEWLINE))
    return data.count(NEWLINE) + (data != b"" and not data.endswith(NEWLINE))


def end_of_records(data: bytes, count: int, *, quoted: bool) -> int:
    """Tell where the first `count` records of a block end; 0 where `count` is not above 0."""
    end, in_quotes = 0, False
    while count > 0 and end < len(data):
        start = end
        end = data.find(NEWLINE, start) + 1 or len(data)
        if quoted:
            in_quotes ^= data.count(QUOTE, start, end) % 2 == 1
        if not in_quotes and data[start:end].removesuffix(NEWLINE) not in EMPTY:
            count -= 1
    return end


def last_end_of_record(data: bytes, *, quoted: bool) -> int:
    """Tell where the last whole record of a text ends that starts with a record; 0 where none ends in it."""
    end = data.rfind(NEWLINE) + 1
    in_quotes = quoted and data.count(QUOTE, 0, end) % 2 == 1
    while in_quotes:
        opened_at = data.rfind(QUOTE, 0, end)
        end = data.rfind(NEWLINE, 0, opened_at) + 1
        in_quotes = data.count(QUOTE, end, opened_at) % 2 == 1
    return end
