"""What a collective call is, and how arrays are cut among ranks and combined. Pure: no shared memory, no sockets."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

try:
    import numpy as np
except ImportError:  # a container need not have it
    np = None  # type: ignore[assignment]
HAS_NUMPY = np is not None

DTYPES = {"float16": 2, "float32": 4, "float64": 8, "int32": 4, "int64": 8}
"""The element types that can be exchanged, each with its size in bytes."""
OPERATIONS = ("sum", "mean", "min", "max")
"""How all-reduce combines elements. `mean` is not defined for integers."""
KINDS = ("barrier", "all-reduce", "broadcast", "all-gather", "empty")
LINE_BYTES = 64
"""A cache line, or a multiple of one."""
_SHORT_COPY_BYTES, _LONG_COPY_BYTES = 4096, 512 * 1024

_AGREED = struct.Struct("<IIIiqI")


class Call(NamedTuple):
    """One collective call, as every rank must make it. `length` is in elements; `root` a rank, of broadcasts only."""

    kind: str
    dtype: str = ""
    length: int = 0
    operation: str = ""
    root: int = -1

    @property
    def byte_count(self) -> int:
        """How many bytes each rank's array has."""
        return self.length * DTYPES[self.dtype] if self.dtype else 0

    def describe(self) -> str:
        """Say it in words, e.g. `all-reduce sum of 1024 float32`."""
        if self.kind == "empty":
            return f"empty of {self.length} bytes"
        if not self.dtype:
            return self.kind
        how = f" {self.operation}" if self.operation else f" from rank {self.root}" if self.root >= 0 else ""
        return f"{self.kind}{how} of {self.length} {self.dtype}"


def pack_call(call: Call, *, by_hub: bool) -> bytes:
    """Write a call as it stands in the arena for others to compare."""
    dtype = list(DTYPES).index(call.dtype) + 1 if call.dtype else 0
    operation = OPERATIONS.index(call.operation) + 1 if call.operation else 0
    return _AGREED.pack(KINDS.index(call.kind), dtype, operation, call.root, call.length, by_hub)


def unpack_call(packed: bytes | memoryview) -> tuple[Call, bool]:
    """Read a call from the arena, and whether the hub reduces."""
    kind, dtype, operation, root, length, by_hub = _AGREED.unpack_from(packed)
    return Call(KINDS[kind], ("", *DTYPES)[dtype], length, ("", *OPERATIONS)[operation], root), bool(by_hub)


def find_odd(calls: dict[int, Call]) -> tuple[int, int]:
    """The first rank whose call differs from that of most, and the first of those; of equals, rank 0's are most."""
    made = list(calls.values())
    usual = min(calls, key=lambda rank: (-made.count(calls[rank]), rank))
    return min((rank for rank in calls if calls[rank] != calls[usual]), default=usual), usual


def share(byte_count: int, part: int, parts: int) -> tuple[int, int]:
    """Where one of `parts` shares of some bytes begins and ends: no two ranks write to one cache line."""
    start = byte_count * part // parts & -LINE_BYTES
    end = byte_count if part == parts - 1 else byte_count * (part + 1) // parts & -LINE_BYTES
    return start, end


def piece_bytes(chunk_bytes: int, world_size: int) -> int:
    """How many bytes of each rank a chunk of an all-gather holds."""
    return chunk_bytes // world_size & -LINE_BYTES


def count_chunks(byte_count: int, chunk_bytes: int) -> int:
    """How many chunks an array takes."""
    return -(-byte_count // chunk_bytes)


def as_elements(data: memoryview, dtype: str) -> Any:
    """See bytes as a numpy array."""
    return np.frombuffer(data, dtype)


def copy(target: Any, source: Any) -> None:
    """Copy bytes (memoryviews or arrays of them), those of middling length by numpy's own loop where it is there.

    Lines that another core has written last take the C library's memcpy several times as long where it copies 64 KB to
    256 KB at a time (measured: glibc 2.36 on an AMD core). From some 512 KB on it goes about it otherwise.
    """
    if np is None or not _SHORT_COPY_BYTES <= len(source) < _LONG_COPY_BYTES:
        target[:] = source
    else:
        np.bitwise_or(source, source, out=np.frombuffer(target, np.uint8))


def combine(operation: str, parts: list[Any], out: Any) -> None:
    """Combine numpy arrays of one length into `out`, in their order. `mean` only sums: divide comes last."""
    if len(parts) == 1:
        out[...] = parts[0]
        return
    function = {"min": np.minimum, "max": np.maximum}.get(operation, np.add)
    with np.errstate(all="ignore"):  # an infinity says it; a warning would come at one rank only
        function(parts[0], parts[1], out=out)
        for part in parts[2:]:
            function(out, part, out=out)


def divide(array: Any, divisor: int) -> None:
    """Divide a numpy array of floats in place."""
    np.true_divide(array, divisor, out=array)
