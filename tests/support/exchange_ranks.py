"""Ranks of the exchange as plain processes: hubs in this process, each rank a Python of its own that runs a script."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raymaker.actors.exchange.hub import ExchangeHub
from raymaker.actors.exchange.seam import Call, ExchangeError, Failure, Values
from raymaker.actors.exchange.values import LocalValues
from raymaker.actors.spec import Place

PATIENCE_S = 120.0
_BEGIN = """\
import array, json, os, sys, time, raymaker_exchange
try:
    import numpy as np
except ImportError:
    np = None
def say(*words):
    print(json.dumps(words), flush=True)
exchange = raymaker_exchange.join()
"""
_NO_NUMPY = "raise ImportError('this rank has no numpy')\n"


@dataclass
class Ranks:
    """The rank processes of a job, and the hubs that they are joined to."""

    hubs: list[ExchangeHub]
    processes: list[subprocess.Popen[str]]

    def kill(self, rank: int) -> None:
        """As the kernel would: nothing of the rank runs any more."""
        os.kill(self.processes[rank].pid, signal.SIGKILL)

    def line(self, rank: int) -> str:
        """Wait for the next line that a rank says."""
        output = self.processes[rank].stdout
        assert output is not None
        return output.readline().strip()

    def endings(self) -> list[tuple[int, str, str]]:
        """Wait for all to end: exit code, what is left of standard output, and standard error of each."""
        found = []
        for process in self.processes:
            output, errors = process.communicate(timeout=PATIENCE_S)
            found.append((process.returncode, output.strip(), errors.strip()))
        return found

    def succeed(self) -> list[str]:
        """Wait for all to end well; what each said."""
        endings = self.endings()
        assert [code for code, _, _ in endings] == [0] * len(endings), "\n".join(errors for _, _, errors in endings)
        return [output for _, output, _ in endings]


@contextlib.contextmanager
def running_ranks(
    home: Path,
    script: str,
    *,
    ranks: int = 2,
    machines: int = 1,
    timeout_s: float = 60.0,
    arena_bytes: int = 64 * 1024**2,
    without_numpy: bool = False,
) -> Iterator[Ranks]:
    """Start hubs, and `ranks` processes on each machine that join and run `script`; stop what still runs at the end."""
    home.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        joined = JoinedMachines(machines)
        hubs, processes = [], []
        for machine in range(machines):
            place = Place(machine, machines, ranks)
            arena = Path("/dev/shm") / f"raymaker-test-{os.getpid()}-{home.name}-{machine}"
            across = joined.machine(machine) if machines > 1 else None
            hub = ExchangeHub(
                home / str(machine), arena, place, across=across, arena_bytes=arena_bytes, timeout_s=timeout_s
            )
            stack.callback(hub.close)
            hub.start()
            hubs.append(hub)
            for index in range(ranks):
                folder = Path(hub.mounts(index)[0].source)
                see_arena(folder, arena)
                processes.append(start_rank(folder, script, without_numpy=without_numpy))
        stack.callback(_stop_all, processes)
        yield Ranks(hubs, processes)


def see_arena(folder: Path, arena: Path) -> None:
    """What a bind mount does in a container."""
    (folder / "arena").unlink()
    (folder / "arena").symlink_to(arena)


def start_rank(folder: Path, script: str, *, without_numpy: bool = False) -> subprocess.Popen[str]:
    """Run a script as a rank."""
    paths = [str(folder)]
    if without_numpy:
        hiding = folder.parent / "without-numpy"
        hiding.mkdir(exist_ok=True)
        (hiding / "numpy.py").write_text(_NO_NUMPY)
        paths.insert(0, str(hiding))
    environment = {**os.environ, "RAYMAKER_EXCHANGE": str(folder), "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", _BEGIN + script]
    piped = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=piped, stderr=piped, stdin=piped, text=True)


def _stop_all(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


class JoinedMachines:
    """What joins the hubs of several machines where all of them live in one process."""

    def __init__(self, machine_count: int) -> None:
        self.machine_count = machine_count
        self.values: Values = LocalValues()
        self._meeting = threading.Barrier(machine_count)
        self._brought: list[object] = [None] * machine_count
        self._listeners: list[Callable[[Failure], None]] = []
        self._failure: Failure | None = None
        self._lock = threading.Lock()

    def machine(self, index: int) -> OneMachine:
        """The others, as one machine sees them."""
        return OneMachine(self, index)

    def swap(self, index: int, brought: object) -> list[object]:
        """Bring something, and get what all brought."""
        try:
            self._brought[index] = brought
            self._meeting.wait(PATIENCE_S)
            everything = list(self._brought)
            self._meeting.wait(PATIENCE_S)
        except threading.BrokenBarrierError:
            raise ExchangeError(self._failure.message if self._failure else "a machine has gone") from None
        return everything

    def watch(self, on_failure: Callable[[Failure], None]) -> None:
        """Tell a hub of the first failure."""
        self._listeners.append(on_failure)

    def fail(self, failure: Failure) -> None:
        """Let nobody go on."""
        with self._lock:
            if self._failure:
                return
            self._failure = failure
        self._meeting.abort()
        for listener in self._listeners:
            listener(failure)

    def part(self) -> None:
        """Let go of those who wait."""
        self._meeting.abort()


class OneMachine:
    """A machine's way to the others: the exchange's `Across`."""

    def __init__(self, joined: JoinedMachines, index: int) -> None:
        self._joined, self._index = joined, index
        self.values = joined.values
        self.agreed: list[Call] = []

    def agree(self, call: Call) -> None:
        calls = self._joined.swap(self._index, call)
        self.agreed.append(call)
        if any(other != call for other in calls):
            raise ExchangeError(f"machines disagree: {[str(other) for other in calls]}")

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        import numpy as np

        parts = self._joined.swap(self._index, bytes(data))
        combine = {"sum": np.add, "min": np.minimum, "max": np.maximum}[operation]
        total = np.frombuffer(parts[0], dtype).copy()  # type: ignore[call-overload]
        for part in parts[1:]:
            combine(total, np.frombuffer(part, dtype), out=total)  # type: ignore[call-overload]
        data[:] = total.tobytes()

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        data[:] = self._joined.swap(self._index, bytes(data))[root_machine]  # type: ignore[assignment]

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        into[:] = b"".join(self._joined.swap(self._index, bytes(data)))  # type: ignore[arg-type]

    def barrier(self) -> None:
        self._joined.swap(self._index, None)

    def fail(self, failure: Failure) -> None:
        self._joined.fail(failure)

    def watch(self, on_failure: Callable[[Failure], None]) -> None:
        self._joined.watch(on_failure)

    def close(self) -> None:
        self._joined.part()
