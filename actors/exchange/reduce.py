"""Arithmetic on arrays that came as bytes, in numpy. No I/O, no ranks: what to combine with what is gathering.py's.

Elements are little-endian, as the wire has them. Sums are made in the arrays' own type, so float16 rounds and overflows
as float16 does; a NaN anywhere makes the result's element NaN, with every operation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymaker.actors.exchange.seam import DTYPES, OPERATIONS

Array = NDArray[Any]
_KEPT_BYTES = 4 * 1024 * 1024
"""The longest array whose memory is used again: of long ones the exchange holds no more than are under way."""
_KEPT_COUNT = 2
_COMBINE = {"sum": np.add, "mean": np.add, "min": np.minimum, "max": np.maximum}


def check_dtype(dtype: str) -> None:
    """Raise ValueError for a type that cannot be exchanged."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")


def check_operation(operation: str, dtype: str) -> None:
    """Raise ValueError for an operation that all-reduce does not have, or not for this type."""
    if operation not in OPERATIONS:
        raise ValueError(f"op {operation!r} is none of {', '.join(OPERATIONS)}")
    if operation == "mean" and dtype.startswith("int"):
        raise ValueError(f"op 'mean' is not defined for {dtype}: use sum and divide, or send floats")


def count_elements(length: int, dtype: str) -> int:
    """Say how many elements `length` bytes hold. Raises ValueError for part of one."""
    check_dtype(dtype)
    if length % DTYPES[dtype]:
        raise ValueError(
            f"a body of {length} bytes is no whole number of {dtype} elements ({DTYPES[dtype]} bytes each)"
        )
    return length // DTYPES[dtype]


def allocate(length: int) -> Array:
    """Make room for bytes that come. Pages are taken only as they are filled."""
    return np.empty(length, np.uint8)


class Room:
    """Memory for the arrays that one caller sends, call after call: new pages take longer to fill than old ones.

    Long arrays are not kept: of those the exchange holds no more than are under way.
    """

    def __init__(self) -> None:
        self._kept: list[Array] = []

    def take(self, length: int) -> Array:
        """Make room for bytes that come, of memory that nobody sees any more where there is such."""
        for array, count in _count_references(self._kept):
            if len(array) == length and count == _UNSEEN:
                return array
        array = allocate(length)
        if length <= _KEPT_BYTES:
            self._kept = [*self._kept[1 - _KEPT_COUNT :], array]
        return array


def _count_references(arrays: list[Array]) -> Iterator[tuple[Array, int]]:
    for array in arrays:
        yield array, sys.getrefcount(array)


((_, _UNSEEN),) = _count_references([allocate(0)])


def as_elements(data: Array | bytes | memoryview, dtype: str) -> Array:
    """See bytes as the elements they are, without a copy."""
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))


def see_bytes(array: Array) -> memoryview:
    """See elements as bytes, without a copy."""
    return array.view(np.uint8).data


def combine(into: Array, part: Array, operation: str) -> None:
    """Fold `part` into `into`, element by element. `mean` adds up: divide() makes it one."""
    with np.errstate(all="ignore"):  # overflow to infinity is an answer here, as it is in the ranks' own arithmetic
        _COMBINE[operation](into, part, out=into)


def divide(array: Array, count: int) -> None:
    """Make a sum of `count` arrays their mean, in place."""
    with np.errstate(all="ignore"):
        np.divide(array, count, out=array, casting="same_kind")
