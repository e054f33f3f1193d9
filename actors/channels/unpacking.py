"""Gzip opened on the way: what is packed comes in pieces, and goes out in pieces of bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from raymaker.actors.errors import StorageError

GZIP = 31
"""zlib's number for gzip with its header and checksum."""
PACKED_PIECE_BYTES = 64 * 1024
PIECE_BYTES = 1024 * 1024
REMEDY = "compress it anew, or set CompressionType to None"


class Unpacker:
    """One object of gzip: one member or several after each other, and zeros behind them. `where` names it in errors."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._member = zlib.decompressobj(GZIP)
        self._is_between = True
        """Whether no member has begun that is not over."""

    def feed(self, packed: memoryview) -> Iterator[bytes]:
        """Unpack the next piece. Raises StorageError where it is no gzip."""
        for start in range(0, len(packed), PACKED_PIECE_BYTES):
            yield from self._feed(bytes(packed[start : start + PACKED_PIECE_BYTES]))

    def finish(self) -> None:
        """Raise StorageError where the object ends in the middle."""
        if not self._is_between:
            raise StorageError(f"{self._where} is truncated: it ends in the middle of its gzip stream; {REMEDY}")

    def _feed(self, rest: bytes) -> Iterator[bytes]:
        while rest:
            if self._is_between:
                rest = rest.lstrip(b"\0")
                if not rest:
                    return
                self._member, self._is_between = zlib.decompressobj(GZIP), False
            try:
                piece = self._member.decompress(rest, PIECE_BYTES)
            except zlib.error as error:
                raise StorageError(f"{self._where} is no gzip file, or a broken one ({error}); {REMEDY}") from error
            if piece:
                yield piece
            self._is_between = self._member.eof
            rest = self._member.unused_data if self._is_between else self._member.unconsumed_tail
            if not rest and not self._is_between and len(piece) == PIECE_BYTES:
                yield from self._held_back()

    def _held_back(self) -> Iterator[bytes]:
        """What the member has taken in and not given out yet."""
        while not self._member.eof and (piece := self._member.decompress(b"", PIECE_BYTES)):
            yield piece
        self._is_between = self._member.eof
