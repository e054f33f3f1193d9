"""NVIDIA's GPUs: which of this machine's were set aside for this process, and which of those a container sees.

A GPU is named as CUDA names it: by its number in the order of the bus, or by its UUID (that of a MIG slice too).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TypeVar

VISIBLE = "CUDA_VISIBLE_DEVICES"
T = TypeVar("T")


def own_gpus() -> tuple[str, ...]:
    """Those that were set aside for this process, by Ray's word; none where nothing is said."""
    return tuple(device for device in os.environ.get(VISIBLE, "").split(",") if device)


def chosen(named: tuple[str, ...], count: float) -> tuple[str, ...]:
    """The GPUs of a container that asks for so many: those named for it, else this process's own, else the first."""
    return named or own_gpus() or tuple(str(number) for number in range(math.ceil(count)))


def share(devices: Sequence[T], index: int, count: int) -> tuple[T, ...]:
    """What the container of this index gets of its machine's GPUs: as many as each other, else all see all."""
    size, rest = divmod(len(devices), count)
    return tuple(devices) if rest else tuple(devices[index * size : (index + 1) * size])
