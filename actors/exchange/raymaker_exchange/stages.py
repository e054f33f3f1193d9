"""The stages that each chunk of a long array passes through at one rank. When it does is collectives.py's."""

from __future__ import annotations

from typing import Any, Protocol

from .arena import Arena
from .calls import DTYPES, Call, as_elements, copy, count_chunks, piece_bytes, share


class Rank(Protocol):
    """What the stages know of the rank that they work for."""

    arena: Arena
    local_rank: int
    world_size: int
    by_hub: bool
    leads: bool

    @property
    def rank(self) -> int:
        """Its rank in the job."""

    def chunk_bytes(self, byte_count: int) -> int:
        """How long the chunks of an array are."""

    def array(self, dtype: str, start: int, byte_count: int) -> Any:
        """A part of the arena as a numpy array."""

    def combine(self, call: Call, parts: list[Any], out: Any) -> None:
        """Combine arrays into `out`."""


class Stages:
    """What there is to do for each chunk, at one rank. A barrier has no chunks, and nothing to do."""

    chunk_count = 0

    def fill(self, chunk: int) -> None:
        """Put what others need into this rank's slot."""

    def combine(self, chunk: int) -> None:
        """Put this rank's part of the result into the ring, when all have filled their slots."""

    def drain(self, chunk: int) -> None:
        """Read the result from the ring, when all have combined their part."""


class AllReduce(Stages):
    """Others' shares of my array go to my slot; I combine my share of all; I read the others' results."""

    def __init__(self, rank: Rank, call: Call, data: memoryview) -> None:
        self._rank, self._arena, self._call, self.data = rank, rank.arena, call, data
        self._chunk_bytes = rank.chunk_bytes(len(data))
        self.chunk_count = count_chunks(len(data), self._chunk_bytes)
        self._typed: Any = None if rank.by_hub or not data else as_elements(data, call.dtype)

    def fill(self, chunk: int) -> None:
        """Put others' shares into my slot."""
        start, end = self._span(chunk)
        low, high = self._my_share(end - start)
        slot, view = self._arena.slot(self._rank.local_rank, chunk), self._arena.view
        copy(view[slot : slot + low], self.data[start : start + low])
        copy(view[slot + high : slot + end - start], self.data[start + high : end])

    def combine(self, chunk: int) -> None:
        """Combine my share of all: mine from where it is, the others' from their slots."""
        start, end = self._span(chunk)
        low, high = self._my_share(end - start)
        if low == high:
            return
        rank, arena, dtype, item_bytes = self._rank, self._arena, self._call.dtype, DTYPES[self._call.dtype]
        mine = self._typed[(start + low) // item_bytes : (start + high) // item_bytes]
        starts = [arena.slot(other, chunk) + low for other in range(arena.local_ranks)]
        parts = [rank.array(dtype, place, high - low) for place in starts]
        parts[rank.local_rank] = mine
        result = rank.array(dtype, arena.result(chunk) + low, high - low)
        # The first two parts are read before anything is written. To combine in place and copy spares the core to fetch
        # the ring's lines, which others have read last, only to overwrite them.
        in_place = rank.local_rank < 2 and not rank.leads  # noqa: PLR2004
        rank.combine(self._call, parts, mine if in_place else result)
        if in_place:
            copy(result.view("u1"), mine.view("u1"))
        elif not rank.leads:
            copy(mine.view("u1"), result.view("u1"))

    def drain(self, chunk: int) -> None:
        """Read the shares that others combined."""
        start, end = self._span(chunk)
        low, high = (0, 0) if self._rank.leads else self._my_share(end - start)
        result, view = self._arena.result(chunk), self._arena.view
        copy(self.data[start : start + low], view[result : result + low])
        copy(self.data[start + high : end], view[result + high : result + end - start])

    def _span(self, chunk: int) -> tuple[int, int]:
        size = self._chunk_bytes
        return chunk * size, min((chunk + 1) * size, len(self.data))

    def _my_share(self, byte_count: int) -> tuple[int, int]:
        """Mine to combine: none where the hub does it."""
        return (0, 0) if self._rank.by_hub else share(byte_count, self._rank.local_rank, self._arena.local_ranks)


class Broadcast(Stages):
    """The root writes to the ring; the others read."""

    def __init__(self, rank: Rank, data: memoryview, *, is_root: bool) -> None:
        self._arena, self._data, self._is_root = rank.arena, data, is_root
        self.chunk_count = count_chunks(len(data), rank.arena.plan.chunk_bytes)

    def combine(self, chunk: int) -> None:
        """As the root, write."""
        if self._is_root:
            mine, ring = self._places(chunk)
            copy(ring, mine)

    def drain(self, chunk: int) -> None:
        """As any other rank, read."""
        if not self._is_root:
            mine, ring = self._places(chunk)
            copy(mine, ring)

    def _places(self, chunk: int) -> tuple[memoryview, memoryview]:
        size, result = self._arena.plan.chunk_bytes, self._arena.result(chunk)
        mine = self._data[chunk * size : (chunk + 1) * size]
        return mine, self._arena.view[result : result + len(mine)]


class AllGather(Stages):
    """Everyone writes a piece to its place in the ring and reads the others'."""

    def __init__(self, rank: Rank, data: memoryview, into: memoryview) -> None:
        self._rank, self._arena, self._data, self._into = rank, rank.arena, data, into
        self._piece_bytes = piece_bytes(rank.arena.plan.chunk_bytes, rank.world_size)
        self.chunk_count = count_chunks(len(data), self._piece_bytes)

    def combine(self, chunk: int) -> None:
        """Write my piece."""
        piece = self._piece(chunk)
        start = self._arena.result(chunk) + self._rank.rank * len(piece)
        copy(self._arena.view[start : start + len(piece)], piece)

    def drain(self, chunk: int) -> None:
        """Read everyone's."""
        size, result = len(self._piece(chunk)), self._arena.result(chunk)
        for rank in range(self._rank.world_size):
            target = rank * len(self._data) + chunk * self._piece_bytes
            source = result + rank * size
            copy(self._into[target : target + size], self._arena.view[source : source + size])

    def _piece(self, chunk: int) -> memoryview:
        return self._data[chunk * self._piece_bytes : (chunk + 1) * self._piece_bytes]
