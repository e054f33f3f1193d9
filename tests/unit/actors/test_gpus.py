"""Which GPUs are whose, and what they are told to do. What real ones do is asked in tests/gpu."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from raymaker.actors import gpu_use
from raymaker.actors.gpu_use import GpuUse, look_at
from raymaker.actors.gpus import chosen, own_gpus, share


class Driver:
    """NVIDIA's library on a machine of one GPU, which is called 0 and GPU-a, and a slice of it that is called MIG-b."""

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return "whole"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return {"GPU-a": "whole", "MIG-b": "slice"}[uuid]

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        if handle == "slice":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=75, memory=9)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=80, used={"whole": 20, "slice": 40}[handle])


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (name for name in vars(Driver) if name.startswith("nvml")):
        monkeypatch.setattr(pynvml, name, getattr(Driver(), name))
    monkeypatch.setattr(gpu_use, "_has_driver", lambda: True)


def test_gpus_are_named_by_number_or_by_uuid(driver: None) -> None:
    assert look_at(["0"]) == look_at(["GPU-a"]) == [GpuUse(busy_percent=75, memory_percent=25)]


def test_a_slice_tells_its_memory_alone(driver: None) -> None:
    assert look_at(["MIG-b"]) == [GpuUse(busy_percent=None, memory_percent=50)]


def test_one_that_is_not_there_is_passed_over(driver: None) -> None:
    assert look_at(["7", "0"]) == [GpuUse(75, 25)]


def test_without_the_driver_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    gpu_use._has_driver.cache_clear()
    assert look_at(["0"]) == []
    gpu_use._has_driver.cache_clear()


@pytest.mark.parametrize(
    ("devices", "count", "expected"),
    [
        ("", 2, [(), ()]),
        ("0", 2, [("0",), ("0",)]),
        ("4,5", 2, [("4",), ("5",)]),
        ("0,1,2", 2, [("0", "1", "2"), ("0", "1", "2")]),
        ("GPU-a,GPU-b,GPU-c,GPU-d", 2, [("GPU-a", "GPU-b"), ("GPU-c", "GPU-d")]),
    ],
)
def test_a_machines_gpus_are_shared_evenly_or_seen_by_all(
    monkeypatch: pytest.MonkeyPatch, devices: str, count: int, expected: list[tuple[str, ...]]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert [share(own_gpus(), index, count) for index in range(count)] == expected


def test_a_container_gets_those_named_for_it_else_this_process_own_else_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert chosen(("7",), 1) == ("7",)
    assert chosen((), 2) == ("2", "3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert chosen((), 1.5) == ("0", "1")
