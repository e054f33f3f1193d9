"""What users of the exchange call: join(), and the Exchange that it gives. Outside raymaker, a world of one."""

from __future__ import annotations

import atexit
import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .arena import Arena
from .buffers import as_bytes, count_bytes, find_dtype, make_array, make_like
from .calls import HAS_NUMPY, OPERATIONS
from .changes import Change, Listening
from .collectives import ArenaRank
from .errors import ExchangeError
from .line import Hub, SocketRank, Value
from .lone import LoneRank, LoneValues


def join(timeout_s: float | None = None) -> Exchange:
    """Be a rank of this container's job, until leave(). Waits for the other ranks of this machine.

    `timeout_s` bounds each wait for other ranks, here and in collective calls through the arena; None leaves that to
    the job's own deadlines. Raises ExchangeError, e.g. when another process of this container has joined.
    """
    folder = os.environ.get("RAYMAKER_EXCHANGE")
    if not folder:
        return Exchange(LoneRank(), LoneValues(), {})
    hub, arena = Hub(folder), _open_arena(folder)
    try:
        told = hub.join(arena=arena is not None, numpy=HAS_NUMPY, timeout_s=timeout_s)
        return Exchange(_choose_way(hub, arena, told, timeout_s), hub, told)
    except BaseException:
        hub.close()
        if arena is not None:
            arena.close()
        raise


class Exchange:
    """A rank's part in the exchange. Collective calls are made by all ranks, in the same order; threads take turns.

    They take anything with the buffer protocol: numpy arrays, array.array, memoryview, and with `dtype` bytearray. It
    must be C-contiguous (else ValueError) and hold float16, float32, float64, int32 or int64 (else TypeError). When a
    rank dies, stalls or makes another call, every rank gets an ExchangeError that names it (RankLost, Stalled,
    Mismatch), and no call can be made any more.
    """

    def __init__(self, way: Collectives, values: Hub | LoneValues, told: dict[str, Any]) -> None:
        self._way, self._values = way, values
        self.rank = int(told.get("rank", 0))
        """This container's number in the job, from 0."""
        self.world_size = int(told.get("world_size", 1))
        """How many containers the job has."""
        self.local_rank = int(told.get("local_rank", 0))
        """This container's number on its machine, from 0."""
        self.local_world_size = int(told.get("local_world_size", 1))
        """How many containers this machine has."""
        self.machine_index = int(told.get("machine_index", 0))
        """This machine's number in the job, from 0."""
        self.machine_count = int(told.get("machine_count", 1))
        """How many machines the job has."""
        self._listening = Listening(values, int(told.get("revision", 0)))
        self._lock, self._process, self._has_left = threading.Lock(), os.getpid(), False
        atexit.register(self.leave)

    def all_reduce(self, array: Any, op: str = "sum", dtype: str | None = None) -> Any:
        """Replace each element by the sum, mean, min or max over all ranks, in place; returns the array.

        A mean of integers is refused (ValueError).
        """
        name, data = find_dtype(array, dtype), as_bytes(array, writable=True)
        if op not in OPERATIONS:
            raise ValueError(f"op {op!r} is none of {', '.join(OPERATIONS)}")
        if op == "mean" and name.startswith("int"):
            raise ValueError(f"op 'mean' is not defined for {name}: use sum and divide, or convert to floats")
        self._do(lambda: self._way.all_reduce(data, name, op))
        return array

    def broadcast(self, array: Any, root: int = 0, dtype: str | None = None) -> Any:
        """Copy rank `root`'s array to all others, in place; returns the array."""
        name, data = find_dtype(array, dtype), as_bytes(array, writable=True)
        if not 0 <= root < self.world_size:
            raise ValueError(f"root {root} is no rank of this job: it has ranks 0 to {self.world_size - 1}")
        self._do(lambda: self._way.broadcast(data, name, root))
        return array

    def all_gather(self, array: Any, dtype: str | None = None) -> Any:
        """Collect the arrays of all ranks in one new array, in rank order.

        Of a numpy array of shape s that is one of shape (world size, *s), else a memoryview world-size times as long.
        """
        name, data = find_dtype(array, dtype), as_bytes(array, writable=False)
        gathered, into = make_like(array, name, self.world_size)
        self._do(lambda: self._way.all_gather(data, name, into))
        return gathered

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self._do(self._way.barrier)

    def empty(self, shape: int | Sequence[int], dtype: str = "float32") -> Any:
        """Make an array that is exchanged fastest; a collective call, of one size at every rank.

        A numpy array where numpy is there, else a typed memoryview. Where all ranks are on one machine it lives in the
        arena, and its place is taken until the ranks leave. Raises ArenaFull.
        """
        lengths = (shape,) if isinstance(shape, int) else tuple(shape)
        byte_count = count_bytes(lengths, dtype)
        return make_array(self._do(lambda: self._way.allocate(byte_count)), lengths, dtype)

    def push(self, name: str, value: Any) -> int:
        """Replace a named value, bytes or an array, for all ranks of the job; returns its version."""
        self._check()
        return self._values.put("values", name, as_bytes(value, writable=False))

    def add(self, name: str, array: Any, dtype: str | None = None) -> int:
        """Add an array to a named value element by element, or set it where there is none; returns its version."""
        self._check()
        dtype = find_dtype(array, dtype)
        return self._values.add(name, as_bytes(array, writable=False), dtype)

    def pull(self, name: str, after: int = 0, wait_s: float = 0.0) -> Value | None:
        """Read a named value newer than version `after`, waiting up to `wait_s` for it; None where there is none."""
        self._check()
        return self._values.get("values", name, after, wait_s)

    def put_document(self, name: str, document: dict[str, Any]) -> int:
        """Replace a named JSON object, of 64 KiB at most, for all ranks of the job; returns its version."""
        self._check()
        return self._values.put("documents", name, memoryview(json.dumps(document).encode()))

    def get_document(self, name: str, after: int = 0, wait_s: float = 0.0) -> dict[str, Any] | None:
        """Read a named JSON object newer than `after`, waiting up to `wait_s` for it; None where there is none."""
        self._check()
        value = self._values.get("documents", name, after, wait_s)
        return None if value is None else dict(json.loads(value.content))

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Have the platform keep up to 256 numbers by their names; `step` is your own count. No rank waits for it."""
        self._check()
        told = {name: _as_json(float(value)) for name, value in values.items()}
        self._values.tell({"metrics": told, **({} if step is None else {"step": int(step)})})

    def changes(self) -> Change | None:
        """Return what of the job was changed since the last time, None where nothing was. Never waits for anybody.

        Whoever asks, listens: a change that no rank of a job has heard of fails, or restarts the job.
        """
        self._check()
        return self._listening.hear(0.0)

    def wait_for_change(self, timeout_s: float = 60.0) -> Change | None:
        """Wait up to `timeout_s` for a change of the job, as `changes` returns it; for threads beside the training."""
        self._check()
        return self._listening.hear(timeout_s)

    def leave(self) -> None:
        """Make no more calls: others go on, unless they wait for this rank. Leaving twice does nothing."""
        if self._has_left or self._process != os.getpid():
            return
        self._has_left = True
        atexit.unregister(self.leave)
        self._way.close()
        self._values.leave()

    def __enter__(self) -> Exchange:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None and not isinstance(error, (ExchangeError, SystemExit)) and not self._has_left:
            self._way.abandon(f"rank {self.rank} gave up: {type(error).__name__}: {error}", self.rank)
        self.leave()

    def _do(self, call: Callable[[], Any]) -> Any:
        with self._lock:
            self._check()
            try:
                return call()
            except ExchangeError:
                raise
            except BaseException as error:  # the others wait for what does not come any more
                self._way.abandon(f"rank {self.rank} left a call in the middle: {type(error).__name__}", self.rank)
                raise

    def _check(self) -> None:
        if self._has_left:
            raise ExchangeError(f"rank {self.rank} has left the exchange", self.rank)
        if self._process != os.getpid():
            raise ExchangeError(
                f"process {os.getpid()} is no rank: process {self._process} joined, and children cannot make its calls"
            )


class Collectives(Protocol):
    """A way to make collective calls, on bytes."""

    def barrier(self) -> None:
        """Wait until every rank is here."""

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine `data` of all ranks, in place."""

    def broadcast(self, data: memoryview, dtype: str, root: int) -> None:
        """Copy the root's to all others."""

    def all_gather(self, data: memoryview, dtype: str, into: memoryview) -> None:
        """Collect those of all ranks, in rank order: `into` is world-size times as long."""

    def allocate(self, byte_count: int) -> memoryview:
        """Find memory that is exchanged fast."""

    def abandon(self, message: str, rank: int) -> None:
        """Let no rank go on: this one cannot."""

    def close(self) -> None:
        """Make no more calls."""


def _as_json(value: float) -> float | str:
    """A number as JSON has it, or the word for one that it does not have."""
    return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]


def _open_arena(folder: str) -> Arena | None:
    """None where the platform or the container's engine does not let us: the socket works everywhere."""
    try:
        return Arena.open(f"{folder}/arena")
    except (OSError, ValueError):
        return None


def _choose_way(hub: Hub, arena: Arena | None, told: dict[str, Any], timeout_s: float | None) -> Collectives:
    if told["mode"] == "arena" and told["world_size"] > 1 and arena is not None:
        deadline_s = float(told["timeout_s"] if timeout_s is None else timeout_s)
        places = {name: int(told[name]) for name in ("rank", "local_rank", "world_size")}
        return ArenaRank(arena, hub, **places, by_hub=told["reduce"] == "hub", timeout_s=deadline_s)
    if arena is not None:
        arena.close()
    return LoneRank() if told["world_size"] == 1 else SocketRank(hub)
