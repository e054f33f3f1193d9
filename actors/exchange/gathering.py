"""What the ranks of one machine bring to one call through their sockets, on its way to one result for all of them.

Arrays are folded in rank order, as soon as all lower ranks' have come, so equal inputs give equal bits every time. The
lowest rank's memory becomes the result, which all answers share. Who may come with what is rendezvous.py's.
"""

from __future__ import annotations

import threading

from raymaker.actors.exchange.reduce import Array, allocate, as_elements, combine, divide, see_bytes
from raymaker.actors.exchange.seam import DTYPES, Across, Call
from raymaker.actors.spec import Place


class Gathering:
    """The arrays of one call. Threads may share it; `done` is set when there is a result, or none can be."""

    def __init__(self, call: Call, place: Place) -> None:
        self.call = call
        self.done = threading.Event()
        self.is_complete = False
        self._place = place
        self._lock = threading.Lock()
        self._next = 0
        self._parts: dict[int, Array] = {}
        self._result = allocate(0)

    @property
    def result(self) -> memoryview:
        """The answer to every rank, as bytes."""
        return see_bytes(self._result)

    def bring(self, rank: int, part: Array) -> bool:
        """Take in a rank's array; True for the last one, whose thread then calls finish()."""
        with self._lock:
            self._parts[rank - self._place.ranks[0]] = part
            del part
            while self._next in self._parts:
                self._fold(self._next, self._parts.pop(self._next))
                self._next += 1
            return self._next == len(self._place.ranks)

    def finish(self, across: Across | None) -> None:
        """Make the result of all that was brought, with other machines' where there are any. Raises ExchangeError."""
        if across is not None:
            across.agree(self.call)
            self._combine(across)
        if self.call.operation == "mean":
            divide(self._result, self._place.world_size)
        self.is_complete = True
        self.done.set()

    def _fold(self, index: int, part: Array) -> None:
        if self.call.kind == "all-gather":
            if index == 0:
                self._result = as_elements(allocate(part.nbytes * len(self._place.ranks)), self.call.dtype)
            self._result[index * len(part) : (index + 1) * len(part)] = part
        elif self.call.kind == "broadcast":
            if self._place.ranks[index] == self.call.root:
                self._result = part
        elif index == 0:
            self._result = part
        elif self.call.kind == "all-reduce":
            combine(self._result, part, self.call.operation)

    def _combine(self, across: Across) -> None:
        call = self.call
        if call.kind == "all-reduce":
            across.all_reduce(self.result, call.dtype, "sum" if call.operation == "mean" else call.operation)
        elif call.kind == "all-gather":
            local, self._result = self.result, allocate(len(self.result) * self._place.machine_count)
            across.all_gather(local, self.result)
        elif call.kind == "broadcast":
            if call.root not in self._place.ranks:
                self._result = allocate(call.count * DTYPES[call.dtype])
            across.broadcast(self.result, call.root // self._place.containers_per_machine)
        else:
            across.barrier()
