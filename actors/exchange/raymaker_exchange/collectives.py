"""Collective calls through the shared-memory arena: one rank's side of each.

It knows the arena and its peers on this machine; sockets are line.py's, and what users may hand over exchange.py's.

Every call begins alike: a rank describes the call, publishes a step, and waits until all have published theirs and
described the same call. Small arrays travel with that step, so that one wait is all. Long ones pass in chunks: each
rank fills its slot with what others need, combines its share of everybody's slots, and drains what others combined,
each stage some chunks behind the one before (Plan). Arrays that live in the arena are combined where they are.
All ranks get the same bits: one rank computes each element, or all do in the same order.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from typing import Any, NoReturn, Protocol

from .arena import FULL, JOINED, LEADER, LEFT, LOST, MISMATCH, STALLED, Arena
from .calls import (
    DTYPES,
    Call,
    as_elements,
    combine,
    count_chunks,
    divide,
    find_odd,
    pack_call,
    piece_bytes,
    share,
    unpack_call,
)
from .errors import ArenaFull, ExchangeError, Mismatch, RankLost, Stalled
from .places import NoRoom, Place, Places
from .stages import AllGather, AllReduce, Broadcast, Stages

_ERRORS = {LOST: RankLost, MISMATCH: Mismatch, STALLED: Stalled, FULL: ArenaFull}
_WHERE = struct.Struct("<q")
_BLOCK_BYTES = 128 * 1024
"""How much of arrays in the arena is combined at a time: that of all ranks stays in a core's cache."""
_FEWEST_SPINS = 16
_MOST_SPINS, _YIELD_EVERY = 1000, 16
_MOST_SPINS_ON_SHARED_CORES, _YIELD_EVERY_ON_SHARED_CORES = 100, 1
"""Where there are more ranks than cores each look is worth less than letting another rank have the core."""
_SHORT_SLEEP_S = 0.0003
"""A sleep as short as this took longer than what it waited for: it would have paid to look on."""
_GRACE_S, _POLL_S, _LOOK_S = 1.0, 0.01, 0.2
_LEADER_GRACE_S = 15.0
"""How much longer than for each other ranks wait for their leader: other machines have deadlines of their own."""


class Link(Protocol):
    """What a rank needs of its hub while it waits in the arena."""

    def alive(self) -> bool:
        """Whether the hub is there."""

    def failure(self) -> tuple[str, int | None] | None:
        """The first failure of the job, with the rank to blame."""

    def tell_failure(self, message: str, rank: int | None) -> tuple[str, int | None]:
        """Report a failure; returns the first one of all."""


class ArenaRank:
    """One rank's side of collectives in the arena, for one thread at a time. Every call fails at all ranks or at none.

    `by_hub` says that the hub reduces, for ranks without numpy.
    """

    def __init__(
        self, arena: Arena, link: Link, *, rank: int, local_rank: int, world_size: int, by_hub: bool, timeout_s: float
    ) -> None:
        self.arena, self.local_rank, self.world_size, self.by_hub = arena, local_rank, world_size, by_hub
        self.leads = by_hub or world_size > arena.local_ranks
        self._link, self._timeout_s, self._first_rank = link, timeout_s, rank - local_rank
        # Each begins with its neighbour: if all waited for rank 0 first they would sleep and wake in step.
        self._peers = [(local_rank + i) % arena.local_ranks for i in range(1, arena.local_ranks)]
        self._step, self._led, self._number = arena.step(local_rank), arena.step(LEADER), 0
        self._call, self._awaited, self._due_s, self._looked_s = Call("barrier"), (LEADER, 0), 0.0, 0.0
        has_core = len(os.sched_getaffinity(0)) >= arena.local_ranks
        self._most_spins = _MOST_SPINS if has_core else _MOST_SPINS_ON_SHARED_CORES
        self._yield_every = _YIELD_EVERY if has_core else _YIELD_EVERY_ON_SHARED_CORES
        self._spins = self._most_spins
        self._places = Places(arena, local_rank)
        self._small_taken = self._slot_taken = self._ring_taken = 0
        self._typed: dict[str, Any] = {}
        arena.set_state(local_rank, JOINED)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self._begin(Call("barrier"))
        self._run(Stages())

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine the bytes `data` of all ranks, in place."""
        call = Call("all-reduce", dtype, len(data) // DTYPES[dtype], operation)
        if not self.leads and len(data) <= self.arena.small_bytes:
            self._reduce_small(call, data)
            return
        work = AllReduce(self, call, data)
        home = None if self.leads else self._places.find(data, DTYPES[dtype])
        if not home:
            self._fill_first(work)
        wheres = self._begin(call, home.where if home else -1)
        if home and set(wheres) == {home.where}:
            self._reduce_in_place(call, len(data), home)
            return
        if max(wheres) >= 0:  # some ranks' arrays live in the arena and some do not: pass all through the slots
            if home:
                self._fill_first(work)
            self._publish()
        self._run(work)

    def broadcast(self, data: memoryview, dtype: str, root: int) -> None:
        """Copy the root's bytes to `data` of every other rank."""
        call = Call("broadcast", dtype, len(data) // DTYPES[dtype], root=root)
        if not self.leads and len(data) <= self.arena.small_bytes:
            self._broadcast_small(call, data)
            return
        self._take_ring(len(data))
        self._begin(call)
        self._run(Broadcast(self, data, is_root=root == self.rank))

    def all_gather(self, data: memoryview, dtype: str, into: memoryview) -> None:
        """Collect the bytes of all ranks, in rank order: `into` is world-size times as long as `data`."""
        call = Call("all-gather", dtype, len(data) // DTYPES[dtype])
        if not self.leads and len(data) <= self.arena.small_bytes:
            self._gather_small(call, data, into)
            return
        self._take_ring(self._gathered_bytes(len(data)))
        self._begin(call)
        self._run(AllGather(self, data, into))

    def allocate(self, byte_count: int) -> memoryview:
        """Give this rank its part of a new place in the arena, which stays taken until the rank leaves.

        Every rank allocates the same, in the same order. Raises ArenaFull at all.
        """
        self._begin(Call("empty", length=byte_count))
        if self.leads:  # through a leader nothing is combined in place
            self._await_leader(0)
            self._led += 1
            return memoryview(bytearray(byte_count))
        try:
            start = self._places.take(byte_count)
        except NoRoom as error:
            self._fail(FULL, str(error), None)
        self._reserve(start, byte_count)
        return self.arena.view[start : start + byte_count]

    def abandon(self, message: str, rank: int) -> None:
        """Let no rank go on: this one cannot."""
        if not self.arena.failure:
            with contextlib.suppress(ExchangeError):
                self._fail(LOST, message, rank)

    def close(self) -> None:
        """Make no more calls: whoever waits for this rank hears that it has left. Arrays in the arena stay."""
        self.arena.set_state(self.local_rank, LEFT)
        self._typed.clear()
        self.arena.close()

    @property
    def rank(self) -> int:
        """This rank, of all machines'."""
        return self._first_rank + self.local_rank

    # -- what every call begins with

    def _begin(self, call: Call, where: int = -1) -> list[int]:
        """Wait until every rank of this machine makes this call; returns where their arrays lie in the arena, or -1."""
        if self.arena.failure:
            self._raise_failure()
        self._call, self._number = call, self._number + 1
        mine, place = pack_call(call, by_hub=self.by_hub), self.arena.call(self.local_rank, self._number)
        place[: len(mine)] = mine
        _WHERE.pack_into(place, len(mine), where)
        self._publish()
        wheres = [where]
        for peer in self._peers:
            self._await(peer, self._step)
            theirs = self.arena.call(peer, self._number)
            if theirs[: len(mine)] != mine:
                self._raise_mismatch()
            wheres += _WHERE.unpack_from(theirs, len(mine))
        return wheres

    def _publish(self) -> None:
        self._step += 1
        self.arena.publish(self.local_rank, self._step)

    def _await(self, who: int, step: int) -> None:
        self._awaited, self._due_s, began_s = (who, step), 0.0, time.monotonic()
        at_once = self.arena.wait(who, step, self._look, self._spins, self._yield_every)
        if at_once or time.monotonic() - began_s < _SHORT_SLEEP_S:  # look on only as long as it pays
            self._spins = min(self._spins * 2, self._most_spins)
        else:
            self._spins = max(self._spins // 2, _FEWEST_SPINS)

    def _await_leader(self, done_count: int) -> None:
        """Wait until the leader, where there is one, has seen all machines agree and is done with so many chunks."""
        if self.leads:
            self._await(LEADER, self._led + 1 + done_count)

    # -- small arrays: everybody reads what everybody wrote

    def _put_small(self, data: memoryview) -> None:
        if len(data) > self._small_taken:
            for turn in (0, 1):
                self._reserve(self.arena.small(self.local_rank, turn), len(data))
            self._small_taken = len(data)
        start = self.arena.small(self.local_rank, self._number + 1)
        self.arena.view[start : start + len(data)] = data

    def _reduce_small(self, call: Call, data: memoryview) -> None:
        self._put_small(data)
        self._begin(call)
        if not data:
            return
        starts = [self.arena.small(rank, self._number) for rank in range(self.world_size)]
        self.combine(
            call, [self.array(call.dtype, start, len(data)) for start in starts], as_elements(data, call.dtype)
        )

    def _broadcast_small(self, call: Call, data: memoryview) -> None:
        if call.root == self.rank:
            self._put_small(data)
        self._begin(call)
        if call.root != self.rank:
            start = self.arena.small(call.root, self._number)
            data[:] = self.arena.view[start : start + len(data)]

    def _gather_small(self, call: Call, data: memoryview, into: memoryview) -> None:
        self._put_small(data)
        self._begin(call)
        for rank in range(self.world_size):
            start = self.arena.small(rank, self._number)
            into[rank * len(data) : (rank + 1) * len(data)] = self.arena.view[start : start + len(data)]

    # -- long arrays: chunk after chunk

    def _fill_first(self, work: AllReduce) -> None:
        self._take_slot(len(work.data))
        self._take_ring(len(work.data))
        for chunk in range(min(self.arena.plan.look_ahead, work.chunk_count)):
            work.fill(chunk)

    def _run(self, work: Stages) -> None:
        """Take every chunk through its stages. What a turn touches, others have let go of (see Plan).

        In turn t all peers have ended turn t - slack - 1. So chunk t is filled everywhere (they did it in turn
        t - look_ahead), chunk t - lag is combined everywhere, and the places of chunk t - slot_count are free: slots,
        which peers read when they combined it, and the ring, which they drained in turn t - slot_count + lag.
        At the end the slots are free, for every peer has combined the last chunk. The ring may still be read, and is
        written to only after all have begun the next call.
        """
        plan, first, count = self.arena.plan, self._step, work.chunk_count
        for turn in range(count + plan.lag if count else 0):
            for peer in self._peers:
                self._await(peer, first + min(max(turn - plan.slack, 0), count))
            if turn < count:
                work.combine(turn)
            if turn >= plan.lag:
                self._await_leader(turn - plan.lag + 1)
                work.drain(turn - plan.lag)
            if turn + plan.look_ahead < count:
                work.fill(turn + plan.look_ahead)
            if turn < count:
                self._publish()
        if not count:
            self._await_leader(0)
        self._led += 1 + count

    # -- arrays in the arena: combined where they are

    def _reduce_in_place(self, call: Call, byte_count: int, home: Place) -> None:
        start, end = share(byte_count, self.local_rank, self.world_size)
        for low in range(start, end, _BLOCK_BYTES):
            size = min(_BLOCK_BYTES, end - low)
            starts = [home.where + rank * home.stride + low for rank in range(self.world_size)]
            parts = [self.array(call.dtype, start, size) for start in starts]
            self.combine(call, parts, parts[0])
            for part in parts[1:]:
                part[...] = parts[0]
        self._publish()
        for peer in self._peers:
            self._await(peer, self._step)

    # -- what the stages use

    def array(self, dtype: str, start: int, byte_count: int) -> Any:
        """A part of the arena as a numpy array."""
        whole, item_bytes = self._typed.get(dtype), DTYPES[dtype]
        if whole is None:
            whole = self._typed[dtype] = as_elements(self.arena.view, dtype)
        return whole[start // item_bytes : (start + byte_count) // item_bytes]

    def chunk_bytes(self, byte_count: int) -> int:
        """How long the chunks of an all-reduce are. Two pass as one: that saves a wait, which costs more."""
        plan = self.arena.plan
        return 2 * plan.chunk_bytes if not self.leads and byte_count <= 2 * plan.chunk_bytes else plan.chunk_bytes

    def combine(self, call: Call, parts: list[Any], out: Any) -> None:
        """Combine arrays into `out`; a mean is divided here, unless a leader does it after the last machine's sum."""
        combine(call.operation, parts, out)
        if call.operation == "mean" and not self.leads:
            divide(out, self.world_size)

    def _gathered_bytes(self, byte_count: int) -> int:
        """How much of the ring an all-gather uses at most."""
        chunk_bytes = self.arena.plan.chunk_bytes
        return count_chunks(byte_count, piece_bytes(chunk_bytes, self.world_size)) * chunk_bytes

    def _take_slot(self, byte_count: int) -> None:
        taken = self._slot_taken
        self._slot_taken = self._take(self.arena.slot(self.local_rank, 0), byte_count, taken)

    def _take_ring(self, byte_count: int) -> None:
        if self.local_rank == 0:  # nobody writes to the ring before rank 0 has begun the call
            self._ring_taken = self._take(self.arena.result(0), byte_count, self._ring_taken)

    def _take(self, start: int, byte_count: int, taken: int) -> int:
        needed = min(byte_count, self.arena.plan.slot_count * self.arena.plan.chunk_bytes)
        if needed > taken:
            self._reserve(start + taken, needed - taken)
        return max(needed, taken)

    def _reserve(self, start: int, byte_count: int) -> None:
        try:
            self.arena.reserve(start, byte_count)
        except OSError as error:
            message = f"rank {self.rank} got no shared memory for the exchange ({error.strerror}): "
            self._fail(FULL, message + "make room in the machine's /dev/shm", self.rank)

    # -- what goes wrong

    def _look(self) -> None:
        """Raise what there is to see while waiting: a failure, a rank that has left, a dead hub, the deadline."""
        (who, step), now = self._awaited, time.monotonic()
        if self.arena.failure:
            self._raise_failure()
        self._due_s = self._due_s or now + self._timeout_s + (_LEADER_GRACE_S if who == LEADER else 0)
        if who != LEADER and self.arena.state(who) == LEFT and not self.arena.reached(who, step):
            rank = self._first_rank + who
            self._fail(
                LOST, f"rank {rank} has left the exchange, and rank {self.rank} waits for it in {self._this()}", rank
            )
        if now >= self._due_s:
            self._raise_stalled()
        if now >= self._looked_s + _LOOK_S:
            self._looked_s = now
            if not self._link.alive():
                self._fail(LOST, f"the exchange hub of rank {self.rank}'s machine has ended", None)

    def _raise_stalled(self) -> NoReturn:
        who, step = self._awaited
        behind = [self._first_rank + peer for peer in self._peers if not self.arena.reached(peer, step)]
        if who == LEADER:
            names, blamed = "the other machines" if self.world_size > self.arena.local_ranks else "the hub", None
        else:
            names, blamed = " and ".join(f"rank {rank}" for rank in behind), behind[0]
        message = f"{names} did not come to {self._this()} within {self._timeout_s:g} s of rank {self.rank}"
        self._fail(STALLED, message, blamed)

    def _raise_mismatch(self) -> NoReturn:
        """Wait a moment for the others, so that the one is blamed who differs from most, and name it and both calls."""
        until_s = time.monotonic() + _GRACE_S
        while time.monotonic() < until_s and not all(self.arena.reached(peer, self._step) for peer in self._peers):
            time.sleep(_POLL_S)
        calls = {self.local_rank: self._call}
        for peer in self._peers:
            if self.arena.reached(peer, self._step):
                calls[peer], _ = unpack_call(self.arena.call(peer, self._number))
        odd, usual = find_odd(calls)
        message = (
            f"rank {self._first_rank + odd} calls {calls[odd].describe()}, and rank {self._first_rank + usual} "
            f"{calls[usual].describe()} (call {self._number}): every rank must make the same calls in the same order"
        )
        self._fail(MISMATCH, message, self._first_rank + odd)

    def _fail(self, reason: int, message: str, rank: int | None) -> NoReturn:
        """Tell every rank that none can go on, and raise the first failure of all."""
        self.arena.mark_failed(reason)
        message, rank = self._link.tell_failure(message, rank)
        self.arena.fail(reason)
        raise _ERRORS.get(self.arena.failure, ExchangeError)(message, rank)

    def _raise_failure(self) -> NoReturn:
        until_s, told = time.monotonic() + _GRACE_S, self._link.failure()
        while not told and time.monotonic() < until_s:  # whoever failed is telling the hub right now
            time.sleep(_POLL_S)
            told = self._link.failure()
        message, rank = told or ("the exchange has failed, and its hub is gone", None)
        raise _ERRORS.get(self.arena.failure, ExchangeError)(message, rank)

    def _this(self) -> str:
        return f"{self._call.describe()} (call {self._number})"
