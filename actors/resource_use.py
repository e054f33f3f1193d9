"""What a job's containers use, as SageMaker's instance metrics name it: looked at now and then, told as metrics.

`CPUUtilization` is percent of one CPU, so that two busy ones are 200. `MemoryUtilization` is percent of what the
container may use, `DiskUtilization` percent of the volume that holds /opt/ml. `GPUUtilization` and
`GPUMemoryUtilization` are percent of one GPU, summed over those that the container sees, whoever uses them: containers
that share a GPU tell the same. `InputBytes` counts what was fetched for the containers of the machine, and streamed to
them; the first of them tells it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from raymaker.actors.background import Background
from raymaker.actors.contract import Seat
from raymaker.actors.errors import WorkError
from raymaker.actors.gpu_use import look_at
from raymaker.actors.reports import JobReporter, Metric, ReportRefused, Source
from raymaker.actors.spec import TrainingSpec
from raymaker.actors.training_container import container_gpus

logger = logging.getLogger(__name__)

LOOK_S = 5.0


class Machine(Protocol):
    """Where the containers are."""

    @property
    def scratch(self) -> Path:
        """A folder on the volume of /opt/ml."""

    def pids(self) -> Mapping[int, int]:
        """The first process of each container that can be seen from here, by rank. Raises EngineAway."""

    @property
    def seats(self) -> Sequence[Seat]:
        """The containers."""

    def input_bytes(self) -> int:
        """How much input was fetched for the containers, and streamed to them."""


@dataclass(frozen=True)
class Use:
    """What the processes of one container have used at `time` (monotonic seconds)."""

    time: float
    cpu_s: float
    memory_bytes: int


def look(pid: int) -> Use | None:
    """Add up what a process and all its descendants use; None where it is gone."""
    cpu_s, memory_bytes = 0.0, 0
    try:
        first = psutil.Process(pid)
        processes = [first, *first.children(recursive=True)]
    except psutil.Error:
        return None
    for process in processes:
        with contextlib.suppress(psutil.Error):  # one that has just ended
            times = process.cpu_times()
            cpu_s += times.user + times.system + times.children_user + times.children_system
            memory_bytes += _memory_bytes(process)
    return Use(time.monotonic(), cpu_s, memory_bytes)


class ResourcePump(Background):
    """Tells what containers use until the block ends.

    A container whose processes cannot be seen from here, since its engine runs in another kernel, is passed over.
    """

    def __init__(self, machine: Machine, spec: TrainingSpec, reporter: JobReporter) -> None:
        super().__init__("resource-pump")
        self._machine = machine
        self._spec = spec
        self._reporter = reporter
        self._limit_bytes = spec.container_resources.memory_bytes or psutil.virtual_memory().total
        self._before: dict[int, Use] = {}

    def _run(self) -> None:
        while True:
            try:
                if found := self._look():
                    self._reporter.metrics(self._spec.job_name, self._spec.attempt, found)
            except ReportRefused:
                return
            except (WorkError, OSError, psutil.Error) as error:
                logger.warning("what %s uses could not be told: %s", self._spec.job_name, error)
            if self._over.wait(LOOK_S):
                return

    def _look(self) -> list[Metric]:
        """Look at every container, and return what each has used since the last time."""
        found: list[Metric] = []
        now, disk = time.time(), shutil.disk_usage(self._machine.scratch)
        gpus = {seat.rank: container_gpus(self._spec, seat) for seat in self._machine.seats}
        for rank, pid in self._machine.pids().items():
            use = look(pid)
            before = self._before.get(rank)
            if use is not None and before is not None:
                numbers = {
                    "CPUUtilization": 100 * max(0.0, use.cpu_s - before.cpu_s) / (use.time - before.time),
                    "MemoryUtilization": 100 * use.memory_bytes / self._limit_bytes,
                    "DiskUtilization": 100 * disk.used / disk.total,
                    **_gpu_numbers(gpus[rank]),
                }
                # No two numbers of a name have one time: by it the platform tells a repeat.
                at = now + rank * 1e-6
                found += [Metric(name, value, at, None, rank, Source.RESOURCES) for name, value in numbers.items()]
            if use is not None:
                self._before[rank] = use
        if found:
            first = min(metric.rank or 0 for metric in found)
            found.append(Metric("InputBytes", self._machine.input_bytes(), now, None, first, Source.RESOURCES))
        return found


def _gpu_numbers(devices: tuple[str, ...]) -> dict[str, float]:
    """What a container's GPUs do, together."""
    uses = look_at(devices)
    found = {
        "GPUUtilization": [use.busy_percent for use in uses if use.busy_percent is not None],
        "GPUMemoryUtilization": [use.memory_percent for use in uses if use.memory_percent is not None],
    }
    return {name: sum(values) for name, values in found.items() if values}


def _memory_bytes(process: psutil.Process) -> int:
    """Memory of its own and its share of what it shares; all that it sees, where that cannot be known."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
