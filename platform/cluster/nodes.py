"""The nodes of the cluster."""

from __future__ import annotations

from dataclasses import dataclass

import ray

HEAD_RESOURCE = "node:__internal_head__"
"""Ray's name for a resource that only the head node has."""


@dataclass(frozen=True)
class Node:
    """A node that lives, and what it has in all."""

    id: str
    cpus: float
    is_head: bool


def living_nodes() -> list[Node]:
    """List the cluster's nodes that live now."""
    return [
        Node(node["NodeID"], node["Resources"].get("CPU", 0.0), HEAD_RESOURCE in node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]
