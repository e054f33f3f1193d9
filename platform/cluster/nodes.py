"""The nodes of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ray

from raymaker.actors.spec import Resources

HEAD_RESOURCE = "node:__internal_head__"
"""Ray's name for a resource that only the head node has."""


@dataclass(frozen=True)
class Node:
    """A node that lives, and what it has in all."""

    id: str
    resources: Resources
    is_head: bool


def living_nodes() -> list[Node]:
    """List the cluster's nodes that live now."""
    return [
        Node(node["NodeID"], _resources(node["Resources"]), HEAD_RESOURCE in node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def _resources(total: Mapping[str, float]) -> Resources:
    return Resources(total.get("CPU", 0.0), int(total.get("memory", 0.0)), total.get("GPU", 0.0))
