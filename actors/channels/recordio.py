"""The framing of RecordIO, in which SageMaker's Pipe mode wraps records on request.

A record is the number 0xced7230a, its length (both 32 bits, little-endian), its bytes, and zeros up to a multiple of
four. The upper three bits of the length mark parts of records that a writer has split; whole ones have zeros there.
Source: dmlc-core's recordio.h, which MXNet and SageMaker's own readers follow.
"""

from __future__ import annotations

import struct

from raymaker.actors.errors import UnsupportedError

MAGIC = 0xCED7230A
LIMIT_BYTES = 1 << 29
ALIGNMENT_BYTES = 4


def header(size_bytes: int, where: str) -> bytes:
    """What stands before a record of so many bytes. Raises UnsupportedError where it is too large for the format."""
    if size_bytes >= LIMIT_BYTES:
        raise UnsupportedError(
            f"{where} has {size_bytes} bytes or more, and a record of RecordIO less than {LIMIT_BYTES}: split the "
            "object, store it in RecordIO, or set RecordWrapperType to None"
        )
    return struct.pack("<II", MAGIC, size_bytes)


def padding(size_bytes: int) -> bytes:
    """What stands behind a record of so many bytes."""
    return bytes(-size_bytes % ALIGNMENT_BYTES)
