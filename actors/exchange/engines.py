"""What moves arrays between machines: ray.util.collective (gloo) where there is torch, else the Ray object store.

An engine may hang, and its errors do not say who is to blame: both are the business of whoever calls it (across.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import ray

from raymaker.actors.exchange.reduce import Array, as_elements, combine
from raymaker.actors.spec import Place

GATHER_BYTES = 4 * 1024 * 1024
"""Gloo gathers in such pieces, since it holds a copy of all that it gathers."""
STORED_BYTES = 16 * 1024 * 1024
"""All-reduce through the object store goes in such pieces, since the store holds copies too."""
INLINE_BYTES = 64 * 1024
"""Parts up to this go through the coordinator; larger ones lie in the object store."""
SIOCGIFADDR = 0x8915


class Engine(Protocol):
    """Moves arrays. Data are bytes, in place; every machine makes the same calls in the same order."""

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine every machine's elements: sum, min or max."""

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        """Copy one machine's bytes to all."""

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        """Collect every machine's bytes, in machine order."""

    def barrier(self) -> None:
        """Wait for every machine."""

    def close(self) -> None:
        """Let go of everything."""


def can_gloo() -> bool:
    """Tell whether this process has what Gloo needs. Imports torch where there is one."""
    from ray.util import collective

    return bool(collective.gloo_available())


class Gloo:
    """ray.util.collective, on tensors that are the caller's own memory. It needs to be in an actor, in any thread."""

    def __init__(self, place: Place, group: str, timeout_s: float) -> None:
        from ray.util import collective
        from ray.util.collective.types import ReduceOp

        self._torch: Any = importlib.import_module("torch")  # not by name: type checkers would read all of it
        if self._torch.distributed.is_initialized():
            raise RuntimeError("this process is in a process group of torch already: start the machine in a fresh one")
        self._collective: Any = collective
        self._operations = {"sum": ReduceOp.SUM, "min": ReduceOp.MIN, "max": ReduceOp.MAX}
        self._group = group
        with _gloo_environment():
            self._collective.init_collective_group(
                place.machine_count, place.machine_index, "gloo", group, gloo_timeout=int(timeout_s * 1000)
            )
        self._count = place.machine_count

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine in place. Minima and maxima of floats are made here, since gloo's lose NaN."""
        if operation == "sum" or dtype.startswith("int"):
            tensor = self._torch.frombuffer(data, dtype=getattr(self._torch, dtype))
            self._collective.allreduce(tensor, self._group, self._operations[operation])
            return
        for piece in _pieces(data, GATHER_BYTES):
            gathered = np.empty((self._count, len(piece)), np.uint8)
            self.all_gather(piece, gathered.data.cast("B"))
            piece[:] = gathered[0].data
            for row in gathered[1:]:
                combine(as_elements(piece, dtype), as_elements(row, dtype), operation)

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        """Copy one machine's bytes to all."""
        self._collective.broadcast(self._bytes(data), root_machine, self._group)

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        """Collect every machine's bytes."""
        rows = [into[start : start + len(data)] for start in range(0, len(into), len(data))]
        for pieces in zip(*(_pieces(part, GATHER_BYTES) for part in (data, *rows)), strict=True):
            mine, *all_of_them = map(self._bytes, pieces)
            self._collective.allgather(all_of_them, mine, self._group)

    def barrier(self) -> None:
        """Wait for every machine."""
        self._collective.barrier(self._group)

    def close(self) -> None:
        """Let go of the group, and of the process group that Ray leaves behind."""
        self._collective.destroy_collective_group(self._group)
        self._torch.distributed.destroy_process_group()

    def _bytes(self, data: memoryview) -> Any:
        return self._torch.frombuffer(data, dtype=self._torch.uint8)


class Objects:
    """The Ray object store: each machine combines its share of the elements, then all collect the shares.

    `swap` gives a part to some machines and returns theirs, once every machine has called it.
    """

    def __init__(self, place: Place, swap: Callable[[Mapping[int, object]], Mapping[int, Any]]) -> None:
        self._me = place.machine_index
        self._count = place.machine_count
        self._others = [machine for machine in range(self._count) if machine != self._me]
        self._swap = swap

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine in place."""
        for piece in _pieces(data, STORED_BYTES):
            shares = np.array_split(as_elements(piece, dtype), self._count)
            mine = shares[self._me]
            for theirs in self._swap({other: _pack(shares[other]) for other in self._others}).values():
                combine(mine, _unpack(theirs, dtype), operation)
            for other, theirs in self._swap(dict.fromkeys(self._others, _pack(mine))).items():
                shares[other][:] = _unpack(theirs, dtype)

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        """Copy one machine's bytes to all."""
        for piece in _pieces(data, STORED_BYTES):
            array = np.frombuffer(piece, np.uint8)
            parts = dict.fromkeys(self._others, _pack(array)) if root_machine == self._me else {}
            for theirs in self._swap(parts).values():
                array[:] = _unpack(theirs, "uint8")

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        """Collect every machine's bytes."""
        rows = np.frombuffer(into, np.uint8).reshape(self._count, -1)
        rows[self._me] = np.frombuffer(data, np.uint8)
        for start in range(0, len(data), STORED_BYTES):
            part = rows[:, start : start + STORED_BYTES]
            for other, theirs in self._swap(dict.fromkeys(self._others, _pack(part[self._me]))).items():
                part[other] = _unpack(theirs, "uint8")

    def barrier(self) -> None:
        """Wait for every machine."""
        self._swap({})

    def close(self) -> None:
        """Nothing is held: what lies in the store goes with its last reference."""


def interface_of(address: str) -> str | None:
    """Name the network interface that has this IPv4 address, or None (netdevice(7), SIOCGIFADDR)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # that interface has no such address
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def _pieces(data: memoryview, size: int) -> Iterator[memoryview]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _pack(array: Array) -> object:
    """Make of an array what may travel: its bytes, or where it lies, in a list (into which Ray does not look)."""
    return array.tobytes() if array.nbytes <= INLINE_BYTES else [ray.put(array)]


def _unpack(packed: Any, dtype: str) -> Array:
    if isinstance(packed, bytes):
        return np.frombuffer(packed, dtype)
    array: Array = ray.get(packed[0])
    return array


@contextlib.contextmanager
def _gloo_environment() -> Iterator[None]:
    """Tell gloo this machine's interface (it would take that of the host's name, often loopback); put all back."""
    names = ("GLOO_SOCKET_IFNAME", "MASTER_ADDR", "MASTER_PORT")  # Ray sets the latter two for torch
    before = {name: os.environ.get(name) for name in names}
    if before[names[0]] is None and (interface := interface_of(ray.util.get_node_ip_address())):
        os.environ[names[0]] = interface
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
