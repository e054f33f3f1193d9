"""The room that gangs hold on the cluster: which placement group is whose, and giving back what nobody uses any more.

Ray Train gives its placement groups no name, and Ray keeps one whose creator died before it was placed. So each
gang asks for a few bytes of memory more than it needs, which tell its groups from all others.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

import ray
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

MIB = 1024 * 1024
HALF_A_BYTE = 0.5
"""What nobody else asks for, and Ray keeps to the letter: it marks the groups of gangs."""

Attempt = tuple[str, int]


def marked_bytes(memory_bytes: int, attempt: Attempt) -> float:
    """The memory that each machine of a gang asks for: whole MiB, at least what it needs, and the gang's mark."""
    return -(-memory_bytes // MIB) * MIB + mark_of(attempt) + HALF_A_BYTE


def mark_of(attempt: Attempt) -> int:
    """A number below a MiB that hardly any other attempt has."""
    name, number = attempt
    return zlib.crc32(f"{name}/{number}".encode()) % MIB


def held_rooms() -> dict[str, int]:
    """List the placement groups of gangs, placed or still to be, each with its gang's mark."""
    rooms = {}
    for name, group in placement_group_table().items():
        amounts = {bundle.get("memory", 0.0) for bundle in group["bundles"].values()}
        if group["state"] != "REMOVED" and len(amounts) == 1:
            memory = amounts.pop()
            if memory % 1 == HALF_A_BYTE:
                rooms[name] = int(memory) % MIB
    return rooms


def give_back(rooms: Collection[str]) -> None:
    """Remove placement groups, and with them whatever runs in them."""
    for name in rooms:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


def give_back_own(attempt: Attempt) -> None:
    """Remove what an earlier supervisor of this attempt left."""
    give_back([name for name, mark in held_rooms().items() if mark == mark_of(attempt)])


class AbandonedRooms:
    """Finds rooms of gangs that are gone. One is given back at the second look, since a gang may just have begun."""

    def __init__(self) -> None:
        self._suspects: frozenset[str] = frozenset()

    def step(self, living: Collection[Attempt]) -> list[str]:
        """Look once; returns the placement groups that were removed."""
        marks = {mark_of(attempt) for attempt in living}
        abandoned = frozenset(name for name, mark in held_rooms().items() if mark not in marks)
        found = sorted(abandoned & self._suspects)
        give_back(found)
        self._suspects = abandoned
        return found
