"""NVIDIA's GPUs: which of this machine's were set aside for this process, who shares them, and what they do just now.

A GPU is named as CUDA names it: by its number in the order of the bus, or by its UUID (that of a MIG slice too). What
they do comes from NVIDIA's management library, which comes with the driver; where there is none nothing is told.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pynvml

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
T = TypeVar("T")


@dataclass(frozen=True)
class GpuUse:
    """What a GPU does, whoever has it do so. None where the GPU does not tell."""

    busy_percent: float | None
    """How much of the last moment (a second at most) something was computed, 0 to 100."""
    memory_percent: float | None
    """How much of its memory is taken, 0 to 100."""


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


def look_at(devices: Iterable[str]) -> list[GpuUse]:
    """Say what each of these GPUs does now. Empty where nothing can be told, as on a machine without the driver."""
    devices = tuple(devices)
    if not devices or not _has_driver():
        return []
    found = []
    for device in devices:
        try:
            handle = _handle(device)
        except pynvml.NVMLError as error:
            logger.warning("what GPU %s does cannot be told: %s", device, error)
            continue
        found.append(GpuUse(_told(lambda: _busy_percent(handle)), _told(lambda: _memory_percent(handle))))  # noqa: B023
    return found


@functools.cache
def _has_driver() -> bool:
    """Open the library, for as long as this process lives: that takes it a tenth of a second."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.warning("what the GPUs do cannot be told: %s", error)
        return False
    return True


def _handle(device: str) -> object:
    return (
        pynvml.nvmlDeviceGetHandleByIndex(int(device)) if device.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(device)
    )


def _told(look: Callable[[], float]) -> float | None:
    """Pass over what this kind of GPU does not tell, as a MIG slice does not how busy it is."""
    try:
        return look()
    except pynvml.NVMLError:
        return None


def _busy_percent(handle: object) -> float:
    return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _memory_percent(handle: object) -> float:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return 100 * float(memory.used) / float(memory.total)
