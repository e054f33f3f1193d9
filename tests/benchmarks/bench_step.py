"""A step of examples/digits_parallel in two containers beside two plain processes, and beside one container.

All run the example's own training loop on rows of the same shape. The rival is two forked processes that share memory
and spin at a barrier; of the image they have only the files, so that Python and numpy are the same, and nothing else
sets them apart from the machine. Ways take turns, each round starts them anew, and ratios are of the medians.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymaker.actors.exchange.hub import TARGET, ExchangeHub
from raymaker.actors.runtime.base import ContainerHandle
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.spec import ContainerSpec, Mount, Place, Resources
from support.measure import median, percentile, print_table

IMAGE = "raymaker-base:bookworm"
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_parallel"
PROGRAM = Path(__file__).with_name("step_rank.py")
CODE = "/bench"
UNCONFINED = ("--network=host", "--pid=host", "--ipc=host", "--security-opt=seccomp=unconfined")
"""What makes processes of a container nearly plain ones: they share all namespaces but that of files."""
ROUNDS = 7
END_TIMEOUT_S = 300.0
RIVAL = "2 processes, memory shared by hand"
CONTAINERS, PROCESSES = "2 containers, the exchange", "2 processes, the exchange"
ONE, UNTIED = "1 container, all rows", "2 containers, nothing exchanged"
MOST_OF_RIVAL = 1.05
LEAST_SPEED_UP = 1.7


@dataclass(frozen=True)
class Work:
    """How much there is to a step, for all ranks together."""

    rows: int
    features: int
    hidden: int
    steps: int


DIGITS = Work(rows=1437, features=64, hidden=64, steps=300)
HEAVY = Work(rows=2048, features=256, hidden=256, steps=12)
"""Nearly all of it matrix products; the gradient has 68,000 elements."""


@dataclass(frozen=True)
class Bench:
    """Where ranks are run: a runtime, and the folder with their program and the example."""

    runtime: DockerRuntime
    folder: Path

    def containers(self, work: Work, count: int, *, exchanging: bool = True) -> list[float]:
        """Share the rows among containers of one CPU each, as jobs have them; the seconds of each step at rank 0."""
        with self._hub(count) as hub, contextlib.ExitStack() as stack:
            handles = []
            for rank in range(count):
                world = {"way": "exchange" if exchanging else "alone", "rank": rank, "world_size": count}
                handles.append(self.runtime.start(self._container(work, world, hub.mounts(rank))))
                stack.callback(self.runtime.remove, handles[-1])
            said, *_ = [self._await_end(handle) for handle in handles]
            return _parse(said)

    def processes(self, work: Work, way: str) -> list[float]:
        """Share the rows among two processes that nothing confines; the seconds of each step at rank 0."""
        with self._hub(2) as hub:
            mounts = [
                dataclasses.replace(mount, target=mount.target.replace(TARGET, f"{TARGET}/{rank}"))
                for rank in range(2)
                for mount in hub.mounts(rank)
            ]
            mounts.append(Mount(str(self.folder), CODE, read_only=True))
            command = ["docker", "run", "--rm", *UNCONFINED]
            for mount in mounts:
                command += ["--volume", f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"]
            command += ["--env=OPENBLAS_NUM_THREADS=1", f"--env=PYTHONPATH={TARGET}/0", IMAGE]
            world = {"way": way, "rank": None, "world_size": 2}
            done = subprocess.run([*command, *_program(work, world)], stdout=subprocess.PIPE, text=True, check=True)
            return _parse(done.stdout.splitlines())

    @contextlib.contextmanager
    def _hub(self, rank_count: int) -> Iterator[ExchangeHub]:
        arena = Path("/dev/shm") / f"raymaker-bench-step-{os.getpid()}"
        hub = ExchangeHub(self.folder.parent / "exchange", arena, Place(0, 1, rank_count), arena_bytes=64 * 1024**2)
        with contextlib.closing(hub):
            hub.start()
            yield hub

    def _container(self, work: Work, world: dict[str, Any], mounts: tuple[Mount, ...]) -> ContainerSpec:
        return ContainerSpec(
            name=f"raymaker-bench-step-{os.getpid()}-{world['rank']}",
            image=IMAGE,
            command=_program(work, world),
            environment={"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": TARGET, "RAYMAKER_EXCHANGE": TARGET},
            mounts=(*mounts, Mount(str(self.folder), CODE, read_only=True)),
            resources=Resources(cpus=1),
        )

    def _await_end(self, handle: ContainerHandle) -> list[str]:
        status = self.runtime.wait(handle, END_TIMEOUT_S)
        lines = [line.text for line in self.runtime.logs(handle)]
        if status is None or status.code:
            raise RuntimeError(f"{handle.name}: {status.describe() if status else 'still runs'}\n" + "\n".join(lines))
        return lines


def main() -> None:
    """Measure both comparisons and print a table for each."""
    with tempfile.TemporaryDirectory() as home:
        code = Path(home) / "code"
        shutil.copytree(EXAMPLE, code, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROGRAM, code)
        bench = Bench(DockerRuntime(Path(home)), code)
        print(f"load of the machine at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        compare_with_processes(bench)
        measure_speed_up(bench)
        print(f"load at the end, this benchmark's own included: {os.getloadavg()[0]:.1f}")


def compare_with_processes(bench: Bench) -> None:
    """The example as it is: what do containers and the exchange cost?"""
    samples = take_turns(
        {
            RIVAL: lambda: bench.processes(DIGITS, "by hand"),
            PROCESSES: lambda: bench.processes(DIGITS, "exchange"),
            CONTAINERS: lambda: bench.containers(DIGITS, 2),
        }
    )
    report(f"a step of digits_parallel, 2 ranks, {DIGITS.steps} steps a round", "of the rival", RIVAL, samples)
    ratio = median(samples[CONTAINERS]) / median(samples[RIVAL])
    verdict = "reached" if ratio <= MOST_OF_RIVAL else "MISSED"
    print(f"containers take {ratio:.3f} of the processes' time; at most {MOST_OF_RIVAL:g}: {verdict}")


def measure_speed_up(bench: Bench) -> None:
    """A step that computes: what does a second container gain, and what does the machine let it gain?"""
    samples = take_turns(
        {
            ONE: lambda: bench.containers(HEAVY, 1),
            UNTIED: lambda: bench.containers(HEAVY, 2, exchanging=False),
            CONTAINERS: lambda: bench.containers(HEAVY, 2),
        }
    )
    report(f"a step of matrix products, {HEAVY.steps} steps a round", "of one", ONE, samples)
    speed_up, most = (median(samples[ONE]) / median(samples[way]) for way in (CONTAINERS, UNTIED))
    verdict = "reached" if speed_up >= LEAST_SPEED_UP else "MISSED"
    print(f"speed-up {speed_up:.2f}, of {most:.2f} where nothing is exchanged; at least {LEAST_SPEED_UP:g}: {verdict}")


def take_turns(ways: dict[str, Callable[[], list[float]]]) -> dict[str, list[float]]:
    """The median step of each way in each round, in seconds. The first round warms up and is not kept."""
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, run in ways.items():
            taken = median(run())
            if number:
                samples[way].append(taken)
    return samples


def report(title: str, ratio_name: str, rival: str, samples: dict[str, list[float]]) -> None:
    """Print the median, the best and the worst round of each way."""
    rows = [
        [
            way,
            f"{median(taken) * 1e3:.3f} ms",
            f"{median(taken) / median(samples[rival]):.3f}",
            f"{min(taken) * 1e3:.3f} ms",
            f"{percentile(taken, 100) * 1e3:.3f} ms",
        ]
        for way, taken in samples.items()
    ]
    print_table(f"{title}, {ROUNDS} rounds", ["", "median", ratio_name, "best round", "worst round"], rows)


def _program(work: Work, world: dict[str, Any]) -> tuple[str, ...]:
    return ("python3", "-B", f"{CODE}/{PROGRAM.name}", json.dumps({**dataclasses.asdict(work), **world}))


def _parse(said: list[str]) -> list[float]:
    return [float(seconds) for seconds in json.loads(said[-1])]


if __name__ == "__main__":
    main()
