"""What GPUs do just now, told by NVIDIA's management library. It comes with the driver: without it nothing is told."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pynvml

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuUse:
    """What a GPU does, whoever has it do so. None where the GPU does not tell."""

    busy_percent: float | None
    """How much of the last moment (a second at most) something was computed, 0 to 100."""
    memory_percent: float | None
    """How much of its memory is taken, 0 to 100."""


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
        found.append(GpuUse(_told(_busy_percent, handle), _told(_memory_percent, handle)))
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


def _told(read: Callable[[object], float], handle: object) -> float | None:
    """Pass over what this kind of GPU does not tell, as a MIG slice does not how busy it is."""
    try:
        return read(handle)
    except pynvml.NVMLError:
        return None


def _busy_percent(handle: object) -> float:
    return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _memory_percent(handle: object) -> float:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return 100 * float(memory.used) / float(memory.total)
