"""Where the arrays lie that ranks allocate in the arena: one place after another, each with a part for every rank.

Every rank allocates the same, in the same order, so all know every place without a word.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from .arena import MIB, Arena
from .calls import LINE_BYTES


class Place(NamedTuple):
    """Where rank 0's part begins, how long each part is, and how far it is from one part to the next; in bytes."""

    where: int
    byte_count: int
    stride: int


class NoRoom(Exception):
    """The arena has too little room left; the message names the remedy."""


class Places:
    """One rank's view of what was allocated; places stay taken until the arena is gone."""

    def __init__(self, arena: Arena, local_rank: int) -> None:
        self._arena, self._local_rank = arena, local_rank
        self._taken: list[Place] = []
        self._used_bytes = 0

    def take(self, byte_count: int) -> int:
        """Take the next place; returns where this rank's part begins. Raises NoRoom."""
        ranks, room_bytes = self._arena.local_ranks, self._arena.room_bytes
        stride = -(-byte_count // LINE_BYTES) * LINE_BYTES
        left = room_bytes - self._used_bytes
        if stride * ranks > left:
            raise NoRoom(_describe_full(byte_count, ranks, left, room_bytes))
        place = Place(self._arena.room_start + self._used_bytes, byte_count, stride)
        self._used_bytes += stride * ranks
        self._taken.append(place)
        return place.where + self._local_rank * stride

    def find(self, data: memoryview, item_bytes: int) -> Place | None:
        """Where in the arena `data`, of this rank, lies: all ranks' parts from the same element on; None elsewhere."""
        if not self._taken:
            return None
        start = ctypes.addressof(ctypes.c_char.from_buffer(data)) - self._arena.address
        for place in self._taken:
            offset = start - place.where - self._local_rank * place.stride
            if offset >= 0 and offset + len(data) <= place.byte_count and offset % item_bytes == 0:
                return place._replace(where=place.where + offset)
        return None


def _describe_full(byte_count: int, local_ranks: int, left: int, room: int) -> str:
    needed_mib = -(-(byte_count * local_ranks + room - left) // MIB)
    return (
        f"the exchange's arena has {left / MIB:.1f} MiB left of {room / MIB:g}, and {local_ranks} arrays of "
        f"{byte_count / MIB:.1f} MiB do not fit: set RAYMAKER_EXCHANGE_ARENA_MIB to {needed_mib} or more in the job's "
        "environment"
    )
