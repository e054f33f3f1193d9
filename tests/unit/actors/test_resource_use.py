"""What containers use, measured on real processes of this test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from raymaker.actors import resource_use
from raymaker.actors.contract import Seat
from raymaker.actors.errors import EngineAway
from raymaker.actors.reports import Metric, Source
from raymaker.actors.resource_use import ResourcePump, look
from raymaker.actors.spec import InstanceType, Place, Resources, TrainingSpec

GIB = 2**30
BUSY = """
import threading
threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
print("busy", flush=True)
input()
"""


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that keeps a CPU busy, and has begun to."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"busy\n"
        yield process.pid
        process.communicate(b"\n")


class KeptMetrics:
    def __init__(self) -> None:
        self.told: list[Metric] = []

    def metrics(self, job_name: str, attempt: int, found: list[Metric]) -> None:
        self.told += found


def spec() -> TrainingSpec:
    return TrainingSpec("job", "arn", "r", 1, InstanceType("local", Resources(cpus=2, memory_bytes=GIB)), "file:///out")


class FakeMachine:
    scratch = Path("/")
    seats = tuple(Seat(Place(containers_per_machine=5), index) for index in range(5))

    def __init__(self, pids: Callable[[], dict[int, int]]) -> None:
        self.pids = pids

    def input_bytes(self) -> int:
        return 77


def pump(pids: dict[int, int], kept: KeptMetrics) -> ResourcePump:
    return ResourcePump(FakeMachine(lambda: pids), spec(), kept)  # type: ignore[arg-type]


def test_a_process_uses_what_it_and_its_children_use(busy: int) -> None:
    found = look(busy)
    everything = look(os.getpid())
    assert found is not None
    assert everything is not None
    assert everything.memory_bytes > found.memory_bytes > 1024**2, "this process has the other as its child"


def test_one_that_is_gone_uses_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert look(process.pid) is None


def test_use_is_told_by_rank_from_the_second_look_on(busy: int) -> None:
    kept = KeptMetrics()
    looking = pump({0: busy, 3: os.getpid(), 4: 2**22 - 1}, kept)
    assert looking._look() == []
    while (used := look(busy)) is not None and used.cpu_s < looking._before[0].cpu_s + 0.05:
        psutil.Process(busy).cpu_times()
    found = looking._look()
    assert {(metric.name, metric.rank) for metric in found} == {
        ("InputBytes", 0),
        *((name, rank) for name in ("CPUUtilization", "MemoryUtilization", "DiskUtilization") for rank in (0, 3)),
    }
    assert {metric.source for metric in found} == {Source.RESOURCES}
    values = {(metric.name, metric.rank): metric.value for metric in found}
    assert values["CPUUtilization", 0] > 10
    assert 0 < values["MemoryUtilization", 0] < values["MemoryUtilization", 3]
    assert 0 < values["DiskUtilization", 0] <= 100
    assert values["InputBytes", 0] == 77
    assert len({(metric.name, metric.time) for metric in found}) == len(found), "a repeat is told by its time"


def test_an_engine_that_is_away_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_use, "LOOK_S", 0.01)
    kept, calls = KeptMetrics(), iter(range(10**9))

    def pids() -> dict[int, int]:
        if next(calls) == 1:
            raise EngineAway("the engine restarts")
        return {0: os.getpid()}

    with ResourcePump(FakeMachine(pids), spec(), kept):  # type: ignore[arg-type]
        while len(kept.told) < 2 * 4:
            look(os.getpid())
    assert {metric.rank for metric in kept.told} == {0}
