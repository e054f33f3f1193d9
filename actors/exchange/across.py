"""The exchange between a job's machines: seam.Across through Ray, and the actor that the machines meet at.

Arrays go through an engine (engines.py); who is gone and who stands still is the coordinator's to find out (link.py),
so that no call waits for ever. What happens within one machine is the hub's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import ray

from raymaker.actors.exchange.coordinator import BEAT_S, SILENCE_S, Coordinator, find_disagreement
from raymaker.actors.exchange.engines import Engine, Gloo, Objects, can_gloo
from raymaker.actors.exchange.link import Link, Worker
from raymaker.actors.exchange.seam import Call, Failure, Value, Values
from raymaker.actors.spec import Place

GRACE_S = 2.0
"""Added to the deadline, so that the hub whose rank holds everybody up speaks first: it can name the rank."""
VERDICT_S = SILENCE_S + 3 * BEAT_S
"""How long after an error of the engine the coordinator may take to find out whose death it was."""
RECORD_BYTES = 256
"""A call as `agree` sends it: of one size, so that machines that disagree can read each other."""


def start_coordinator(machine_count: int, containers_per_machine: int) -> Any:
    """Start the actor that the machines of one job start meet at; it ends when nobody holds its handle any more."""
    groups = {"beats": 2, "rounds": machine_count, "values": 16}  # whoever waits keeps nobody from beating
    remote: Any = ray.remote  # its types do not know concurrency groups
    return remote(num_cpus=0, concurrency_groups=groups)(Coordinator).remote(machine_count, containers_per_machine)


def greet_coordinator(coordinator: Any) -> None:
    """Wait until it is there, and have Ray connect this process to it. Raises RayError."""
    ray.get(coordinator.greet.remote())


class RayAcross:
    """One machine's way to the others, in a Ray actor: see seam.Across. A process holds one at a time.

    Creating it waits until every machine has come, and raises ExchangeError as every call does. `group` is a name
    that no other start has used. `has_torch` None has this machine look for itself.
    """

    def __init__(
        self,
        coordinator: Any,
        place: Place,
        group: str,
        *,
        timeout_s: float = 300.0,
        join_timeout_s: float = 600.0,
        has_torch: bool | None = None,
    ) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._link = Link(coordinator, place.machine_index)
        self._worker = Worker(self._link.changed)
        self._engine: Engine | None = None
        self.values: Values = RayValues(self._link)
        try:
            all_torch = self._link.join(can_gloo() if has_torch is None else has_torch, join_timeout_s)
            self._do(lambda: self._open_engine(group, all_torch=all_torch), join_timeout_s)
        except BaseException:
            self.close()
            raise

    def agree(self, call: Call) -> None:
        """See that every machine makes this call next."""
        self._link.doing = call.describe()
        record = bytearray(json.dumps(astuple(call)).encode().ljust(RECORD_BYTES))
        records = bytearray(RECORD_BYTES * self._place.machine_count)
        self.all_gather(memoryview(record), memoryview(records))
        starts = range(0, len(records), RECORD_BYTES)
        calls = [Call(*json.loads(records[start : start + RECORD_BYTES])) for start in starts]
        if odd := find_disagreement(calls, self._place):
            raise self._link.fail(odd)

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine `data` (one machine's sum, min or max) with the other machines' in place."""
        if data.nbytes:
            self._do(lambda: self._opened.all_reduce(data.cast("B"), dtype, operation))

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        """Copy the root machine's bytes to `data` of every other machine."""
        if data.nbytes:
            self._do(lambda: self._opened.broadcast(data.cast("B"), root_machine))

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        """Collect every machine's bytes, in machine order: `into` is machine-count times as long as `data`."""
        if data.nbytes:
            self._do(lambda: self._opened.all_gather(data.cast("B"), into.cast("B")))

    def barrier(self) -> None:
        """Wait until every machine is here."""
        self._do(self._opened.barrier)

    def fail(self, failure: Failure) -> None:
        """Tell the other machines that no rank can go on. The first failure of all stays."""
        self._link.fail(failure)

    def watch(self, on_failure: Callable[[Failure], None]) -> None:
        """Have `on_failure` called, once and from another thread, with the first failure of any machine."""
        self._link.watch(on_failure)

    def close(self) -> None:
        """Let go of the other machines. Closing twice does nothing.

        An engine that hangs in a call after a failure cannot be closed: it goes with its process.
        """
        if self._link.close():
            self._worker.end(self._engine.close if self._engine else None)

    @property
    def _opened(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def _open_engine(self, group: str, *, all_torch: bool) -> None:
        if all_torch:
            self._engine = Gloo(self._place, group, self._timeout_s)
        else:
            self._engine = Objects(self._place, self._link.swap)

    def _do(self, work: Callable[[], None], timeout_s: float | None = None) -> None:
        """Have the engine work, and wait no longer than until it is known that it will not end."""
        link, timeout_s = self._link, self._timeout_s if timeout_s is None else timeout_s
        with link.changed:
            link.raise_if_over()
            link.sequence += 1
            job = self._worker.begin(work)
            in_time = link.changed.wait_for(lambda: job.is_done or link.is_over, timeout_s + GRACE_S)
            if job.is_done and job.error is None:
                return
            if job.error is not None:
                link.changed.wait_for(lambda: link.is_over, VERDICT_S)
            if in_time:
                link.raise_if_over()
        if not in_time:
            raise link.stalled(timeout_s)
        raise link.fail(Failure(f"{link.doing} failed between the machines: {job.error}", lost=True)) from job.error


class RayValues:
    """seam.Values at the coordinator."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(self, name: str, content: bytes, content_type: str) -> int:
        """Replace a value; returns its new version."""
        return int(self._link.ask("put_value", name, content, content_type, group="values"))

    def add(self, name: str, content: bytes, dtype: str) -> int:
        """Add an array to a value element by element; returns its new version."""
        return int(self._link.ask("add_value", name, content, dtype, group="values"))

    def get(self, name: str, after_version: int = 0, wait_s: float = 0.0) -> Value | None:
        """Read a newer value, waiting up to `wait_s` for it, a second at a time: others want the thread too."""
        deadline = time.monotonic() + wait_s
        while True:
            left_s = max(deadline - time.monotonic(), 0.0)
            value: Value | None = self._link.ask("get_value", name, after_version, min(left_s, 1.0), group="values")
            if value is not None or left_s == 0.0:
                return value
