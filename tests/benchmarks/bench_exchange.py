"""All-reduce through the exchange beside gloo over loopback, and beside as many processes copying as many bytes.

The exchange's ranks are real containers without a network; gloo's, for want of an image with torch, and the copiers are
processes of this machine, in no container: that spares them what a container costs. All stay up and take turns, round
after round, and ratios are of the medians over all rounds. The exchange's memory is counted at the end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raymaker.actors.exchange.hub import ExchangeHub
from raymaker.actors.spec import Place
from support.measure import MIB, median, percentile, print_table
from support.servers import free_port

IMAGE = "raymaker-base:bookworm"
RANK_COUNTS = (2, 4)
SIZES = {"64 KB": 64 * 1024, "1 MB": MIB, "100 MB": 100 * MIB}
CALL_COUNTS = {"64 KB": 200, "1 MB": 50, "100 MB": 3}
ROUNDS = 7
GLOO, FLOOR = "gloo over loopback", "floor: all copy at once"
ARENA, IN_ARENA, SOCKET = "exchange", "exchange, arrays in the arena", "exchange, socket"
REACHES = {
    ("64 KB", ARENA): 0.1,
    ("1 MB", ARENA): 0.15,
    ("1 MB", SOCKET): 1.0,
    ("100 MB", ARENA): 0.4,
    ("100 MB", IN_ARENA): 0.25,
}
"""Times gloo's median that a way may take."""

LOOP = """
import json, sys, time
print("ready", flush=True)
for line in sys.stdin:
    name, size, count = json.loads(line)
    call = prepare(name, size)
    call()
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    print(json.dumps(taken), flush=True)
"""
EXCHANGE_RANK = """
import numpy, raymaker_exchange
exchange = raymaker_exchange.join()
arrays = {}
def prepare(name, size):
    if (name, size) not in arrays:
        make = exchange.empty if name == "in arena" else numpy.empty
        arrays[name, size] = make(size // 4, "float32")
    array = arrays[name, size]
    array[:] = exchange.rank
    exchange.all_reduce(array)
    assert (array == exchange.world_size * (exchange.world_size - 1) // 2).all()
    array[:] = 0
    return lambda: exchange.all_reduce(array)
"""
GLOO_RANK = """
import torch, torch.distributed
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
tensors = {}
def prepare(_, size):
    tensor = tensors.setdefault(size, torch.empty(size // 4))
    tensor.zero_()
    return lambda: torch.distributed.all_reduce(tensor)
"""
COPIER = """
def prepare(_, size):
    source, target = (memoryview(bytearray(b"x" * size)) for _ in range(2))
    return lambda: target.__setitem__(slice(None), source)
"""


@dataclass(frozen=True)
class Team:
    """Ranks that do one thing together when told."""

    processes: list[subprocess.Popen[str]]

    def measure(self, name: str, size_bytes: int, count: int) -> list[float]:
        """Have them make so many calls; the seconds that each took at rank 0."""
        for process in self.processes:
            assert process.stdin is not None
            print(json.dumps([name, size_bytes, count]), file=process.stdin, flush=True)
        taken = [read_line(process) for process in self.processes]
        return [float(seconds) for seconds in json.loads(taken[0])]


def main() -> None:
    """Measure with two and with four ranks."""
    if importlib.util.find_spec("torch") is None:
        sys.exit("bench_exchange needs torch for gloo: pip install torch==2.13.0 (the CPU build will do)")
    print("gloo's ranks are processes of this machine, the exchange's are containers")
    for rank_count in RANK_COUNTS:
        with contextlib.ExitStack() as stack:
            compare(stack, rank_count)


def compare(stack: contextlib.ExitStack, rank_count: int) -> None:
    """Let all ways take turns, print a table for each size, and the memory that the exchange holds."""
    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    hub, arena = stack.enter_context(running_hub(home / "arena", rank_count))
    socket_hub, _ = stack.enter_context(running_hub(home / "socket", rank_count))
    containers = stack.enter_context(running(exchange_commands(hub, rank_count, with_arena=True)))
    by_socket = stack.enter_context(running(exchange_commands(socket_hub, rank_count, with_arena=False)))
    gloo = stack.enter_context(running(gloo_commands(rank_count)))
    copiers = stack.enter_context(running([[sys.executable, "-c", COPIER + LOOP]] * rank_count))
    ways = {FLOOR: copiers, GLOO: gloo, ARENA: containers, IN_ARENA: containers, SOCKET: by_socket}
    samples: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS + 1):
        for size, size_bytes in SIZES.items():
            for way, team in ways.items():
                taken = team.measure("in arena" if way == IN_ARENA else "own", size_bytes, CALL_COUNTS[size])
                if number:  # the first round warms up
                    samples.setdefault((size, way), []).extend(taken)
    for size in SIZES:
        report(size, rank_count, {way: samples[size, way] for way in ways})
    report_memory(rank_count, arena.stat().st_blocks * 512)


def report(size: str, rank_count: int, samples: dict[str, list[float]]) -> None:
    """Print medians and tails, each with its ratio to gloo's, and what was to be reached."""
    gloo = samples[GLOO]
    rows = []
    for way, taken in samples.items():
        p50, p99 = median(taken), percentile(taken, 99)
        ratio, reach = p50 / median(gloo), REACHES.get((size, way))
        verdict = "" if reach is None else f"at most {reach:g}: {'reached' if ratio <= reach else 'MISSED'}"
        tail = p99 / percentile(gloo, 99)
        rows.append([way, f"{p50 * 1e3:.3f} ms", f"{ratio:.3f}", f"{p99 * 1e3:.3f} ms", f"{tail:.3f}", verdict])
    title = f"all-reduce of {size} of float32, {rank_count} ranks, {len(gloo)} calls in {ROUNDS} rounds"
    print_table(title, ["", "p50", "of gloo", "p99", "of gloo", "reach"], rows)


def report_memory(rank_count: int, held_bytes: int) -> None:
    """Print what the arena holds after all that, in largest tensors."""
    largest_bytes = max(SIZES.values())
    held, most = held_bytes / largest_bytes, rank_count + 1
    verdict = "reached" if held <= most else "MISSED"
    print(f"\nmemory: the arena holds {held_bytes / MIB:.1f} MiB, {held:.2f} of the largest tensor")
    print(f"at most {most} (ranks + 1): {verdict}")


@contextlib.contextmanager
def running_hub(folder: Path, rank_count: int) -> Iterator[tuple[ExchangeHub, Path]]:
    """A hub whose arena has room for every array that is measured."""
    arena = Path("/dev/shm") / f"raymaker-bench-{os.getpid()}-{folder.name}"
    room_bytes = rank_count * sum(SIZES.values()) + MIB
    hub = ExchangeHub(folder, arena, Place(0, 1, rank_count), arena_bytes=room_bytes)
    with contextlib.ExitStack() as stack:
        stack.callback(hub.close)
        hub.start()
        yield hub, arena


def exchange_commands(hub: ExchangeHub, rank_count: int, *, with_arena: bool) -> list[list[str]]:
    """How to run each rank in a container of its own, as bare as jobs' containers are."""
    commands = []
    for index in range(rank_count):
        command = ["docker", "run", "--interactive", "--rm", "--network=none", "--cap-drop=ALL", "--read-only"]
        mounts = hub.mounts(index) if with_arena else hub.mounts(index)[:1]
        for mount in mounts:
            command += ["--volume", f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"]
        command += ["--env=RAYMAKER_EXCHANGE=/opt/ml/exchange", "--env=PYTHONPATH=/opt/ml/exchange", IMAGE]
        commands.append([*command, "python3", "-B", "-c", EXCHANGE_RANK + LOOP])
    return commands


def gloo_commands(rank_count: int) -> list[list[str]]:
    """How to run each rank of torch.distributed."""
    shared = [
        "MASTER_ADDR=127.0.0.1",
        f"MASTER_PORT={free_port()}",
        f"WORLD_SIZE={rank_count}",
        "GLOO_SOCKET_IFNAME=lo",
    ]
    script = [sys.executable, "-c", GLOO_RANK + LOOP]
    return [["env", *shared, f"RANK={rank}", *script] for rank in range(rank_count)]


@contextlib.contextmanager
def running(commands: Sequence[Sequence[str]]) -> Iterator[Team]:
    """Run all ranks of a team, which end when their input does."""
    piped = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=piped, stdout=piped, text=True)) for command in commands
        ]
        for process in processes:
            assert read_line(process).strip() == "ready"
        yield Team(processes)


def read_line(process: subprocess.Popen[str]) -> str:
    """What a rank says next. Raises RuntimeError where it has ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a rank has ended, with code {process.wait()}: {process.args!r:.200}")
    return line


if __name__ == "__main__":
    main()
