"""What bench_step.py runs in a container: a rank, or all ranks as processes, of the example's training loop.

Told what to do as JSON in its only argument; the last line of its output is the seconds that each step took at rank 0.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import raymaker_exchange
import train
from network import Network

CLASSES = 10
WARM_UP_STEPS = 3
PAGES_BYTES = 64 * 1024 * 1024
LINE = 8
"""Counters of the barrier are that many words apart, so that ranks do not share a cache line."""


def main() -> None:
    told = SimpleNamespace(**json.loads(sys.argv[1]))
    pages = mmap.mmap(-1, PAGES_BYTES)
    if told.rank is None:
        told.rank = fork_ranks(told.world_size)
        os.environ["RAYMAKER_EXCHANGE"] = f"/opt/ml/exchange/{told.rank}"
    watched = Watched(open_exchange(told, pages))
    run_steps(watched, told)
    if told.rank == 0:
        print(json.dumps(np.diff(watched.ends)[WARM_UP_STEPS:].tolist()), flush=True)


def fork_ranks(world_size: int) -> int:
    """Become that many processes; returns which of them this is."""
    for rank in range(1, world_size):
        if os.fork() == 0:
            return rank
    return 0


def open_exchange(told: SimpleNamespace, pages: mmap.mmap) -> Any:
    """The way that this rank adds up gradients with the others."""
    if told.way == "by hand":
        return SharedByHand(told.rank, told.world_size, pages)
    if told.way == "alone":
        del os.environ["RAYMAKER_EXCHANGE"]
    return raymaker_exchange.join()


def run_steps(exchange: Any, told: SimpleNamespace) -> None:
    """Train on this rank's share of rows that look like the example's."""
    rng = np.random.default_rng(seed=0)
    rows = rng.normal(size=(told.rows, told.features))[told.rank :: told.world_size].copy()
    labels = rng.integers(CLASSES, size=told.rows)[told.rank :: told.world_size].copy()
    network = Network.random(told.features, told.hidden, CLASSES, seed=0)
    arguments = SimpleNamespace(epochs=told.steps + WARM_UP_STEPS, learning_rate=0.1, checkpoint_every=10)
    train.train(exchange, network, rows, labels, arguments)


class Watched:
    """An exchange that notes when each all-reduce had ended: from one to the next it is a step."""

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange
        self.ends: list[float] = []

    def all_reduce(self, array: Any) -> None:
        self._exchange.all_reduce(array)
        self.ends.append(time.perf_counter())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)


class SharedByHand:
    """The rival: arrays in pages that forked processes share, each adds up its slice, and a barrier that spins."""

    def __init__(self, rank: int, world_size: int, pages: mmap.mmap) -> None:
        self.rank, self.world_size = rank, world_size
        self._counters = memoryview(pages).cast("q")[: world_size * LINE]
        self._pages, self._offset = pages, mmap.PAGESIZE
        self._parts: Any = None

    def empty(self, count: int, dtype: str) -> Any:
        """One array per rank, side by side; returns this rank's."""
        shape = (self.world_size, count)
        self._parts = np.frombuffer(self._pages, dtype, self.world_size * count, self._offset).reshape(shape)
        return self._parts[self.rank]

    def broadcast(self, array: Any, root: int = 0) -> Any:
        """All ranks hold the same already, where there is no checkpoint."""
        return array

    def all_reduce(self, _: Any) -> None:
        length = self._parts.shape[1]
        mine = slice(length * self.rank // self.world_size, length * (self.rank + 1) // self.world_size)
        self._barrier()
        self._parts[:, mine] = self._parts[:, mine].sum(axis=0)
        self._barrier()

    def _barrier(self) -> None:
        own = self.rank * LINE
        self._counters[own] += 1
        for rank in range(self.world_size):
            while self._counters[rank * LINE] < self._counters[own]:
                os.sched_yield()


if __name__ == "__main__":
    main()
