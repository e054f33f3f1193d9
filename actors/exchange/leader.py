"""The hub's part in collectives of the arena: reducing for ranks without numpy, and combining with other machines.

Only such jobs have a leader. Ranks of one machine that all have numpy need nobody (raymaker_exchange/collectives.py).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from raymaker.actors.exchange.raymaker_exchange.arena import LEADER, Arena
from raymaker.actors.exchange.raymaker_exchange.calls import (
    Call,
    as_elements,
    combine,
    count_chunks,
    divide,
    piece_bytes,
    unpack_call,
)
from raymaker.actors.exchange.seam import Across, ExchangeError, Failure
from raymaker.actors.exchange.seam import Call as AgreedCall
from raymaker.actors.spec import Place

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0


class Leader:
    """A thread beside the hub that follows the calls of its machine's ranks in the arena.

    Start it only where `reduce` is "hub" or the job has several machines: the ranks then wait for it in every call.
    `on_failure` is called from the leader's thread, once, when the other machines or the leader itself cannot go on.
    """

    def __init__(
        self, arena: Arena, place: Place, across: Across | None, on_failure: Callable[[Failure], None]
    ) -> None:
        self._arena, self._place, self._across, self._on_failure = arena, place, across, on_failure
        self._closing = False
        self._number, self._ranks_step, self._step = 0, arena.step(0), arena.step(LEADER)
        self._thread = threading.Thread(target=self._lead, name="exchange-leader", daemon=True)

    def start(self) -> None:
        """Begin to follow calls. Call it before the ranks are told that they have joined."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, which must not be in a call of `across`: close that first. The arena stays the hub's."""
        self._closing = True
        if self._thread.ident is None or self._thread is threading.current_thread():
            return
        for rank in range(self._arena.local_ranks):
            self._arena.wake(rank)
        self._thread.join(_CLOSE_S)

    def _lead(self) -> None:
        try:
            while True:
                self._follow_call()
        except _Ended:
            return
        except ExchangeError as error:
            self._on_failure(error.failure)
        except Exception as error:  # the ranks wait for this thread: they must hear why it does not come
            logger.exception("exchange: the leader of machine %s broke down", self._place.machine_index)
            self._on_failure(Failure(f"the exchange of machine {self._place.machine_index} broke down: {error!r}"))

    def _follow_call(self) -> None:
        """See one call through. Its first step says that all machines agree, each further one that a chunk is done."""
        self._number += 1
        self._ranks_step += 1
        self._await_ranks(self._ranks_step)
        call, by_hub = self._read_call()
        if self._across:
            self._across.agree(AgreedCall(*call))
            if call.kind == "barrier":
                self._across.barrier()
        self._publish()
        count = self._count_chunks(call)
        for chunk in range(count):
            reduces = by_hub and call.kind == "all-reduce"
            # Ranks fill their slots ahead, and say so by the step of the turn they do it in (ArenaRank._run).
            done_turns = max(0, chunk + 1 - self._arena.plan.look_ahead) if reduces else chunk + 1
            self._await_ranks(self._ranks_step + done_turns)
            self._finish_chunk(call, chunk, reduces=reduces)
            self._publish()
        self._ranks_step += count

    def _read_call(self) -> tuple[Call, bool]:
        calls = {unpack_call(self._arena.call(rank, self._number)) for rank in range(self._arena.local_ranks)}
        if len(calls) > 1:  # the ranks see it themselves, and tell the hub with the words that it takes
            raise _Ended
        return calls.pop()

    def _count_chunks(self, call: Call) -> int:
        if not call.dtype:
            return 0
        plan, size = self._arena.plan, call.byte_count
        cut = piece_bytes(plan.chunk_bytes, self._place.world_size) if call.kind == "all-gather" else plan.chunk_bytes
        return count_chunks(size, cut)

    def _finish_chunk(self, call: Call, chunk: int, *, reduces: bool) -> None:
        """Make what stands in the ring the result of all ranks of all machines."""
        plan, size, result = self._arena.plan, call.byte_count, self._arena.result(chunk)
        if call.kind == "all-gather":
            piece = piece_bytes(plan.chunk_bytes, self._place.world_size)
            self._gather(result, min(piece, size - chunk * piece))
            return
        length = min(plan.chunk_bytes, size - chunk * plan.chunk_bytes)
        ring = self._arena.view[result : result + length]
        if reduces:
            slots = [self._arena.slot(rank, chunk) for rank in range(self._arena.local_ranks)]
            parts: list[Any] = [as_elements(self._arena.view[slot : slot + length], call.dtype) for slot in slots]
            combine(call.operation, parts, as_elements(ring, call.dtype))
        if self._across and call.kind == "all-reduce":
            self._across.all_reduce(ring, call.dtype, "sum" if call.operation == "mean" else call.operation)
        if self._across and call.kind == "broadcast":
            self._across.broadcast(ring, call.root // self._place.containers_per_machine)
        if call.operation == "mean":
            divide(as_elements(ring, call.dtype), self._place.world_size)

    def _gather(self, result: int, piece: int) -> None:
        if self._across:
            start = result + self._place.ranks[0] * piece
            local = bytearray(self._arena.view[start : start + len(self._place.ranks) * piece])
            into = self._arena.view[result : result + self._place.world_size * piece]
            self._across.all_gather(memoryview(local), into)

    def _await_ranks(self, step: int) -> None:
        self._look()
        for rank in range(self._arena.local_ranks):
            self._arena.wait(rank, step, self._look)

    def _look(self) -> None:
        if self._closing or self._arena.failure:
            raise _Ended

    def _publish(self) -> None:
        self._step += 1
        self._arena.publish(LEADER, self._step)


class _Ended(Exception):
    """There is nothing more to follow."""
