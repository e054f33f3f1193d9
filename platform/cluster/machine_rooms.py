"""What is reserved on Ray for the attempt that a machine runs, its room: a placement group named by the machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from ray.util import get_placement_group
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from raymaker.actors.spec import Resources

ROOM_PREFIX = "machine-room/"
LOOK_S = 0.002


def room_name(machine_name: str) -> str:
    """Name the room of a machine."""
    return f"{ROOM_PREFIX}{machine_name}"


def remove_all_rooms() -> None:
    """Give back what is reserved for machines, once nobody makes any more."""
    remove_rooms(machine_rooms())


def machine_rooms() -> list[str]:
    """Name all rooms on the cluster."""
    return list(states_of_rooms(ROOM_PREFIX))


def states_of_rooms(prefix: str) -> dict[str, str]:
    """Tell how far Ray is with each reservation whose name begins so: PENDING, CREATED, RESCHEDULING."""
    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    return {group["name"]: group["state"] for group in groups if group["name"].startswith(prefix)}


def remove_rooms(names: Iterable[str]) -> None:
    """Give back reservations by their names; one that is gone is no error."""
    for name in names:
        with contextlib.suppress(ValueError):
            remove_placement_group(get_placement_group(name))


def reserve_room(name: str, needed: Resources, node: str | None = None) -> PlacementGroup:
    """Ask Ray to reserve what an attempt needs, for the machine of that name, on a node or anywhere."""
    bundle = bundle_of(needed)
    there = None if node is None else [{"ray.io/node-id": node}]
    room: PlacementGroup = placement_group(
        [bundle], name=room_name(name), lifetime="detached", bundle_label_selector=there
    )
    return room


def bundle_of(needed: Resources) -> dict[str, float]:
    """Say what an instance needs as Ray has it, which takes no bundle of nothing."""
    amounts = {"CPU": needed.cpus, "GPU": needed.gpus, "memory": float(needed.memory_bytes)}
    return {kind: amount for kind, amount in amounts.items() if amount} or {"memory": 1.0}


def node_of(room: PlacementGroup, timeout_s: float) -> str | None:
    """The node on which a reservation was made, None where it still waits. Ray's `wait` knows whole seconds only."""
    deadline = time.monotonic() + timeout_s
    while (found := placement_group_table(room))["state"] != "CREATED":
        if time.monotonic() >= deadline:
            return None
        time.sleep(LOOK_S)
    return str(found["bundles_to_node_id"][0])
