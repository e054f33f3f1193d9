"""The little of CUDA's driver interface that shows a GPU at work, without any package: libcuda.so.1 comes with it."""

from __future__ import annotations

import ctypes
import time
from typing import Any

GIB = 2**30


def load() -> Any:
    """The driver's library; None where this container sees no GPU."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return library if library.cuInit(0) == 0 else None


def count() -> int:
    """How many GPUs are seen."""
    library, number = load(), ctypes.c_int()
    if library is None:
        return 0
    must(library.cuDeviceGetCount(ctypes.byref(number)))
    return number.value


class Memory:
    """A GiB of the first GPU."""

    def __init__(self) -> None:
        self._cuda = load()
        device, self._context, self._at = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
        must(self._cuda.cuDeviceGet(ctypes.byref(device), 0))
        must(self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device))
        self._enter()
        must(self._cuda.cuMemAlloc_v2(ctypes.byref(self._at), ctypes.c_size_t(GIB)))

    def fill(self, byte: int, seconds: float = 0.0) -> bytes:
        """Have the GPU write this byte everywhere, over and over for so long, and read the last eight back."""
        self._enter()
        end = time.monotonic() + seconds
        while True:
            must(self._cuda.cuMemsetD8_v2(self._at, ctypes.c_ubyte(byte), ctypes.c_size_t(GIB)))
            must(self._cuda.cuCtxSynchronize())
            if time.monotonic() >= end:
                break
        back = ctypes.create_string_buffer(8)
        must(self._cuda.cuMemcpyDtoH_v2(back, ctypes.c_uint64(self._at.value + GIB - 8), ctypes.c_size_t(8)))
        return back.raw

    def _enter(self) -> None:
        """A context is a thread's own."""
        must(self._cuda.cuCtxSetCurrent(self._context))


def must(code: int) -> None:
    """Go on only where CUDA says that it worked."""
    if code:
        raise RuntimeError(f"CUDA error {code}")
