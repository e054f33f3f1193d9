"""All-reduce between two Ray nodes beside raw gloo between two plain processes over loopback.

Each machine's part is played by an actor that has RayAcross and makes a hub's calls: agree, then all-reduce in place,
in one piece or in pieces as a hub does. The ways take turns, and ratios are of the medians over all rounds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from support.exchange_machines import Machines, two_ray_nodes
from support.measure import median, percentile, print_table
from support.servers import free_port

ROUNDS = 7
SIZES = {"1 MB": (1_000_000, 20), "100 MB": (100_000_000, 3)}
"""Bytes, and how often they are combined in a round."""
PIECE = 4 * 1024 * 1024
"""Elements that a hub would pass at once; 16 MiB."""
RIVAL = "raw gloo, loopback"
WAYS = {"gloo": ("Gloo", 0), "gloo in pieces of 16 MiB": ("Gloo", PIECE), "object store": ("Objects", 0)}
TARGET = 1.3
"""Times raw gloo's at 100 MB that RayAcross may take."""

Timer = Callable[[int, int], list[float]]


def main() -> None:
    """Measure and print."""
    with two_ray_nodes(), contextlib.ExitStack() as stack:
        timers = {RIVAL: stack.enter_context(raw_gloo())}
        pairs = {engine: stack.enter_context(machines(engine)) for engine in ("Gloo", "Objects")}
        timers |= {way: timer_of(pairs[engine], piece) for way, (engine, piece) in WAYS.items()}
        for name, (size_bytes, repeat_count) in SIZES.items():
            report(name, measure(timers, size_bytes // 4, repeat_count))
        agreed_s = pairs["Gloo"].all("time_agree", 200)[0]
        print(f"\nto agree on a call: p50 {median(agreed_s) * 1e3:.2f} ms, p99 {percentile(agreed_s, 99) * 1e3:.2f} ms")


def measure(timers: dict[str, Timer], element_count: int, repeat_count: int) -> dict[str, list[float]]:
    """Let the ways take turns; seconds by way. What the first turn costs once is not counted."""
    taken_s: dict[str, list[float]] = {way: [] for way in timers}
    for timer in timers.values():
        timer(element_count, 1)
    for _ in range(ROUNDS):
        for way, timer in timers.items():
            taken_s[way] += timer(element_count, repeat_count)
    return taken_s


def report(name: str, taken_s: dict[str, list[float]]) -> None:
    """Print medians and tails, each with its ratio to raw gloo's."""
    middle = {way: (median(seconds), percentile(seconds, 99)) for way, seconds in taken_s.items()}
    rival = middle[RIVAL]
    rows = [
        [way, f"{p50 * 1e3:.2f} ms", f"{p50 / rival[0]:.2f}", f"{p99 * 1e3:.2f} ms", f"{p99 / rival[1]:.2f}"]
        for way, (p50, p99) in middle.items()
    ]
    print_table(f"{name}, two machines, {ROUNDS} rounds", ["", "p50", "of raw", "p99", "of raw"], rows)
    if name == "100 MB":
        ratio = middle["gloo"][0] / rival[0]
        print(f"across two Ray nodes: {ratio:.2f} times raw gloo's; the target is at most {TARGET:g}")


@contextlib.contextmanager
def machines(engine: str) -> Iterator[Machines]:
    """Two machines that have met."""
    pair = Machines(2)
    try:
        assert pair.open(f"bench-{engine}", torch=(engine == "Gloo",) * 2) == [engine] * 2
        yield pair
    finally:
        pair.end()


def timer_of(pair: Machines, piece_element_count: int) -> Timer:
    """Time a pair, which passes so many elements at once; 0 is all."""

    def timer(element_count: int, repeat_count: int) -> list[float]:
        return list(pair.all("time_all_reduce", element_count, repeat_count, piece_element_count)[0])

    return timer


@contextlib.contextmanager
def raw_gloo() -> Iterator[Timer]:
    """Two processes with torch.distributed and nothing else."""
    spawn = multiprocessing.get_context("spawn")
    port = free_port()
    with (
        ProcessPoolExecutor(1, mp_context=spawn, initializer=join_raw, initargs=(0, port)) as first,
        ProcessPoolExecutor(1, mp_context=spawn, initializer=join_raw, initargs=(1, port)) as second,
    ):

        def timer(element_count: int, repeat_count: int) -> list[float]:
            other = second.submit(time_raw, element_count, repeat_count)
            taken_s = first.submit(time_raw, element_count, repeat_count).result()
            other.result()
            return taken_s

        yield timer


def join_raw(rank: int, port: int) -> None:
    """What a rival's process does first."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)


def time_raw(element_count: int, repeat_count: int) -> list[float]:
    """Sum over and over; tells the seconds that each took."""
    import torch
    import torch.distributed as dist

    array = np.ones(element_count, np.float32)
    tensor = torch.from_numpy(array)
    taken_s = []
    dist.barrier()
    for _ in range(repeat_count):
        began = time.perf_counter()
        dist.all_reduce(tensor)
        taken_s.append(time.perf_counter() - began)
        array.fill(1)
    return taken_s


if __name__ == "__main__":
    main()
