"""Arrays as users have them: anything with the buffer protocol, its bytes and element type, and new ones like it."""

from __future__ import annotations

import math
from typing import Any

from .calls import DTYPES

try:
    import numpy as np
except ImportError:  # a container need not have it
    np = None  # type: ignore[assignment]

_FORMATS = {"float16": "e", "float32": "f", "float64": "d", "int32": "i", "int64": "q"}
_BYTES = "Bbc"


def find_dtype(array: Any, dtype: str | None) -> str:
    """Name the element type of an array. Bytes have none: they need `dtype`. Raises TypeError, ValueError."""
    view = _view(array)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    if view.format in _BYTES:
        return _check_bytes(view, dtype)
    order, code = view.format[:-1], view.format[-1:]
    name = f"int{8 * view.itemsize}" if code in "ilqn" else {"e": "float16", "f": "float32", "d": "float64"}.get(code)
    if name not in DTYPES or order not in ("", "@", "=", "<"):
        raise TypeError(
            f"elements of format {view.format!r} cannot be exchanged: convert them to one of {', '.join(DTYPES)}"
        )
    if dtype not in (None, name):
        raise ValueError(f"the array's elements are {name}, not {dtype}: leave dtype out, or convert the array")
    return name


def as_bytes(array: Any, *, writable: bool) -> memoryview:
    """See an array's memory as bytes, without a copy. Raises TypeError, ValueError."""
    view = _view(array)
    if not view.c_contiguous:
        raise ValueError("the array is not C-contiguous: pass numpy.ascontiguousarray(array), and copy results back")
    if writable and view.readonly:
        raise ValueError("the array is read-only, and the result goes into it: pass a copy that can be written to")
    if not view.nbytes:
        return memoryview(bytearray())
    if view.format[-1:] == "e" and np is not None:  # memoryview cannot cast float16 before Python 3.12
        return memoryview(np.asarray(view).reshape(-1).view(np.uint8).data)
    return view.cast("B")


def make_array(memory: memoryview, shape: tuple[int, ...], dtype: str) -> Any:
    """Make an array over bytes: numpy's where it is there, else a memoryview. Raises TypeError for float16 without."""
    if np is not None:
        return np.frombuffer(memory, dtype).reshape(shape) if len(memory) else np.empty(shape, dtype)
    if dtype == "float16":
        raise TypeError("arrays of float16 need numpy in the container")
    return _cast(memory, dtype, shape)


def make_like(array: Any, dtype: str, times: int) -> tuple[Any, memoryview]:
    """Make an array for `times` arrays like this one, and its bytes: a leading axis for numpy's, else one long view."""
    if np is not None and isinstance(array, np.ndarray):
        made = np.empty((times, *array.shape), array.dtype)
        return made, as_bytes(made, writable=True)
    view = _view(array)
    memory = memoryview(bytearray(view.nbytes * times))
    if view.format in _BYTES or dtype == "float16":
        return memory, memory
    return _cast(memory, dtype), memory


def add_arrays(one: bytes, other: memoryview, dtype: str) -> bytes:
    """Add two arrays element by element. Raises ValueError for different lengths."""
    if len(one) != len(other):
        raise ValueError(f"the value has {len(one)} bytes and the array {len(other)}: they must be of one length")
    if np is not None:
        return bytes((np.frombuffer(one, dtype) + np.frombuffer(other, dtype)).tobytes())
    total = _cast(memoryview(bytearray(one)), dtype)
    for index, element in enumerate(_cast(other, dtype)):
        total[index] += element
    return bytes(total.tobytes())


def count_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """How many bytes an array takes. Raises ValueError."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    if any(length < 0 for length in shape):
        raise ValueError(f"shape {shape} has a negative length")
    return math.prod(shape) * DTYPES[dtype]


def _view(array: Any) -> memoryview:
    try:
        return memoryview(array)
    except TypeError:
        raise TypeError(
            f"a {type(array).__name__} has no buffer to exchange: pass a numpy array (a torch tensor has .numpy()), "
            "array.array, memoryview or bytearray"
        ) from None


def _check_bytes(view: memoryview, dtype: str | None) -> str:
    if dtype is None:
        raise TypeError("bytes do not say what their elements are: name it, e.g. dtype='float32'")
    if view.nbytes % DTYPES[dtype]:
        raise ValueError(f"{view.nbytes} bytes are no whole number of {dtype} elements ({DTYPES[dtype]} bytes each)")
    return dtype


def _cast(memory: memoryview, dtype: str, shape: tuple[int, ...] | None = None) -> Any:
    """As a typed view. One of no elements, or of no dimensions, stays flat: memoryview has none of those."""
    code: Any = _FORMATS[dtype]
    return memory.cast(code, shape) if len(memory) and shape and len(shape) > 1 else memory.cast(code)
