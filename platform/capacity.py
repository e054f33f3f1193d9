"""Resources in sums: what instances need together, what is left, and how many of them nodes can hold. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from raymaker.actors.spec import Resources, TrainingSpec

GIB = 1024**3
ROUNDING = 1e-4
"""Ray counts in ten-thousandths; what is smaller comes from adding floats."""
LISTED_COUNT = 5
"""How many kinds of nodes an error lists."""


def resources_needed(spec: TrainingSpec) -> Resources:
    """What must be free before an attempt can begin: all its instances, of an elastic job the fewest."""
    each, count = spec.instance_type.resources, spec.min_instance_count or spec.instance_count
    return multiply(each, count)


def add(one: Resources, other: Resources) -> Resources:
    """Return both together."""
    return Resources(one.cpus + other.cpus, one.memory_bytes + other.memory_bytes, one.gpus + other.gpus)


def multiply(each: Resources, count: int) -> Resources:
    """Return so many of these together."""
    return Resources(each.cpus * count, each.memory_bytes * count, each.gpus * count)


def missing(free: Resources, needed: Resources) -> frozenset[str]:
    """Name the kinds of resources of which more is needed than is free."""
    kinds = {
        "cpus": (free.cpus + ROUNDING, needed.cpus),
        "memory": (free.memory_bytes, needed.memory_bytes),
        "gpus": (free.gpus + ROUNDING, needed.gpus),
    }
    return frozenset(kind for kind, (has, need) in kinds.items() if need and need > has)


def subtract(free: Resources, needed: Resources) -> Resources:
    """Return what is left; below zero where there was not enough."""
    return Resources(free.cpus - needed.cpus, free.memory_bytes - needed.memory_bytes, free.gpus - needed.gpus)


def shortage(left: Resources) -> str:
    """Say in words what is below zero, '' where nothing is."""
    below = Resources(max(0.0, -left.cpus), max(0, -left.memory_bytes), max(0.0, -left.gpus))
    return ", ".join(_in_words(below))


def count_that_fit(nodes: Iterable[Resources], needed: Resources) -> int:
    """How many instances the nodes could hold if they held nothing else. A node of unknown memory (0) has enough."""
    return sum(_count_on(node, needed) for node in nodes)


def describe(resources: Resources) -> str:
    """Say resources in words."""
    return ", ".join(_in_words(resources))


def describe_nodes(nodes: Iterable[Resources]) -> str:
    """Say in words what nodes there are, those that are alike together, the most numerous first."""
    kinds = Counter(nodes).most_common()
    told = [f"{count} node{'s'[: count > 1]} of {describe(kind)}" for kind, count in kinds[:LISTED_COUNT]]
    if rest := sum(count for _, count in kinds[LISTED_COUNT:]):
        told.append(f"{rest} other nodes")
    return "; ".join(told)


def _count_on(node: Resources, needed: Resources) -> int:
    rooms = [(node.cpus, needed.cpus), (node.gpus, needed.gpus)]
    if node.memory_bytes:
        rooms.append((node.memory_bytes, needed.memory_bytes))
    return min((math.floor((room + ROUNDING) / need) for room, need in rooms if need), default=0)


def _in_words(resources: Resources) -> list[str]:
    parts = []
    if resources.cpus > ROUNDING:
        parts.append(f"{resources.cpus:g} CPUs")
    if resources.memory_bytes > 0:
        parts.append(f"{resources.memory_bytes / GIB:.1f} GiB of memory")
    if resources.gpus > ROUNDING:
        parts.append(f"{resources.gpus:g} GPUs")
    return parts
