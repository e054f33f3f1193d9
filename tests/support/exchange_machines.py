"""Several Ray nodes on this machine, and actors on them that stand for a job's machines in the exchange.

`Machine` runs in Ray's processes and has RayAcross itself, without a hub: what a test asks for is what it calls.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray

from raymaker.actors.exchange.across import RayAcross, start_coordinator
from raymaker.actors.exchange.seam import Call, ExchangeError, Failure, Value
from raymaker.actors.spec import Place
from support.ray_nodes import ray_nodes

ANSWER_TIMEOUT_S = 90.0


class Machine:
    """One machine of a job: the body of an actor. Calls come in threads of the actor's pool, as they do in a gang."""

    def __init__(self) -> None:
        self._across: RayAcross | None = None
        self._heard: list[Failure] = []
        self._hears = threading.Event()

    def open(self, coordinator: Any, place: Place, group: str, **options: Any) -> str:
        """Meet the others; tells the engine by name."""
        self._across = RayAcross(coordinator, place, group, **options)
        self._across.watch(self._hear)
        return type(self.across._engine).__name__

    @property
    def across(self) -> RayAcross:
        assert self._across is not None
        return self._across

    def pid(self) -> int:
        return os.getpid()

    def agree(self, call: Call) -> None:
        self.across.agree(call)

    def all_reduce(self, array: np.ndarray, operation: str) -> np.ndarray:
        """Agree and combine, as a hub does for each call of its ranks."""
        combined = array.copy()
        self._all_reduce(combined, operation)
        return combined

    def sum_until_it_fails(self, element_count: int, told: str) -> None:
        """Sum over and over; writes to the file `told` why that could not go on."""
        array = np.ones(element_count, np.float32)
        try:
            while True:
                self._all_reduce(array, "sum")
                array.fill(1)
        except ExchangeError as error:
            part = Path(f"{told}.part")
            part.write_text(str(error))
            part.rename(told)

    def can_unmap_after_all_reduce(self, wait_s: float) -> bool:
        """Sum in mapped memory; tells whether nobody holds on to it when the call is done and a moment has passed."""
        memory = mmap.mmap(-1, 4096)
        with memoryview(memory) as data:
            self.across.all_reduce(data, "float32", "sum")
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            with contextlib.suppress(BufferError):  # gloo's own thread lets go last
                memory.close()
                return True
        return False

    def time_all_reduce(self, element_count: int, repeat_count: int, piece_element_count: int = 0) -> list[float]:
        """Sum over and over; tells the seconds that each took."""
        array = np.ones(element_count, np.float32)
        step = piece_element_count or element_count
        taken_s = []
        for _ in range(repeat_count):
            began = time.perf_counter()
            self.across.agree(Call("all-reduce", "float32", element_count, "sum"))
            for start in range(0, element_count, step):
                self.across.all_reduce(array[start : start + step].data, "float32", "sum")
            taken_s.append(time.perf_counter() - began)
            array.fill(1)
        return taken_s

    def time_agree(self, repeat_count: int) -> list[float]:
        taken_s = []
        for _ in range(repeat_count):
            began = time.perf_counter()
            self.across.agree(Call("barrier"))
            taken_s.append(time.perf_counter() - began)
        return taken_s

    def broadcast(self, array: np.ndarray, root_machine: int) -> np.ndarray:
        received = array.copy()
        self.across.broadcast(received.data, root_machine)
        return received

    def all_gather(self, array: np.ndarray, machine_count: int) -> np.ndarray:
        gathered = np.empty((machine_count, *array.shape), array.dtype)
        self.across.all_gather(array.copy().data, gathered.data)
        return gathered

    def barrier(self) -> None:
        self.across.barrier()

    def fail(self, failure: Failure) -> None:
        self.across.fail(failure)

    def heard(self, wait_s: float = 0.0) -> list[Failure]:
        """What was told to `watch`, after waiting for something."""
        self._hears.wait(wait_s)
        return self._heard

    def put(self, name: str, content: bytes) -> int:
        return self.across.values.put(name, content, "text/plain")

    def add(self, name: str, array: np.ndarray) -> int:
        return self.across.values.add(name, array.tobytes(), str(array.dtype))

    def get(self, name: str, after_version: int = 0, wait_s: float = 0.0) -> Value | None:
        return self.across.values.get(name, after_version, wait_s)

    def close(self) -> list[str]:
        """Let go of the others; names what is left of it in this process."""
        import torch

        self.across.close()
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("exchange")]
        left += [name for name in ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME") if name in os.environ]
        return left + ["a process group of torch"] * torch.distributed.is_initialized()

    def _all_reduce(self, array: np.ndarray, operation: str) -> None:
        self.across.agree(Call("all-reduce", str(array.dtype), array.size, operation))
        self.across.all_reduce(array.data, str(array.dtype), operation)

    def _hear(self, failure: Failure) -> None:
        self._heard.append(failure)
        self._hears.set()


class Machines:
    """The machines of one job, one on each node in turn."""

    def __init__(self, count: int, containers_per_machine: int = 1) -> None:
        self.count = count
        self._containers = containers_per_machine
        actor = ray.remote(num_cpus=0, max_concurrency=4)(Machine)
        self.actors: list[Any] = [actor.options(resources={f"node{i % 2}": 0.01}).remote() for i in range(count)]
        self.coordinator: Any = None

    def open(self, group: str, *, torch: tuple[bool, ...] = (), **options: Any) -> list[str]:
        """Have all of them meet; tells each one's engine."""
        self.coordinator = start_coordinator(self.count, self._containers)
        return self.gather(
            [
                machine.open.remote(
                    self.coordinator,
                    Place(index, self.count, self._containers),
                    group,
                    has_torch=torch[index] if torch else None,
                    **options,
                )
                for index, machine in enumerate(self.actors)
            ]
        )

    def all(self, verb: str, *arguments: Any) -> list[Any]:
        """Have every machine do the same."""
        return self.gather([getattr(machine, verb).remote(*arguments) for machine in self.actors])

    def each(self, verb: str, *arguments: Any) -> list[Any]:
        """Have each machine do it with an argument of its own."""
        answers = [getattr(machine, verb).remote(*own) for machine, own in zip(self.actors, arguments, strict=True)]
        return self.gather(answers)

    def gather(self, answers: list[Any]) -> list[Any]:
        return ray.get(answers, timeout=ANSWER_TIMEOUT_S)

    def end(self) -> None:
        """End their processes."""
        for actor in [*self.actors, self.coordinator]:
            if actor is not None:
                ray.kill(actor)


@contextlib.contextmanager
def two_ray_nodes() -> Iterator[None]:
    """A Ray cluster of two nodes, to which this process is connected; resources `node0` and `node1` tell them apart."""
    with ray_nodes({"num_cpus": 4, "resources": {"node0": 1}}, {"num_cpus": 4, "resources": {"node1": 1}}):
        yield
