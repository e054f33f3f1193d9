"""Which nodes have a janitor: all, but where Ray's autoscaler takes nodes away only those that are in use.

Ray takes no node away on which an actor lives, be it a janitor. So there the janitor of a node that is not the head
goes once nothing else lives on the node and all of this platform is removed from it, and comes again with the next
actor.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymaker.actors.site import Site
from raymaker.platform.cluster.janitor import Janitor
from raymaker.platform.cluster.node_standbys import JANITOR
from raymaker.platform.cluster.nodes import Node, living_nodes
from raymaker.platform.cluster.workers import detached, find_actor

logger = logging.getLogger(__name__)

CONCURRENCY = 8
LOOK_S = 3.0
"""How often is looked which nodes are in use."""
TIMEOUT_S = 5
REST_S = 60.0
"""How long Ray may take to say it, and how long it is left alone after it did not: the whole control loop waits."""
MOST_ACTORS = 10_000
"""As many as Ray lists."""


def place_janitors(site: Site, nodes: Iterable[str]) -> list[ray.ObjectRef[bool]]:
    """See that each of these nodes has its janitor. Returns what is answered once they are there and stay."""
    return [_place_janitor(site, node) for node in nodes]


class Janitors:
    """Gives nodes their janitors, and lets those go that hold a node back. For one thread."""

    def __init__(self, site: Site, *, may_leave: bool) -> None:
        self._site = site
        self._may_leave = may_leave
        self._known: frozenset[str] = frozenset()
        self._look_at = 0.0
        self._is_told = False

    def step(self, now: float) -> None:
        """Look after nodes that have joined, and after those that may be taken away. `now` is in seconds."""
        nodes = living_nodes()
        names = frozenset(node.id for node in nodes)
        place_janitors(self._site, names - self._known)
        self._known = names
        if self._may_leave and len(nodes) > 1 and now >= self._look_at:
            knows = self._look_after([node for node in nodes if not node.is_head])
            self._look_at = now + (LOOK_S if knows else REST_S)

    def _look_after(self, nodes: Collection[Node]) -> bool:
        """Have janitors where somebody works, and there alone; False where Ray does not say where."""
        # Few control planes need it, and it takes long to load.
        from ray.util.state import list_actors
        from ray.util.state.exception import RayStateApiException

        try:
            gcs = ray.get_runtime_context().gcs_address
            actors = list_actors(gcs, filters=[("state", "=", "ALIVE")], limit=MOST_ACTORS, timeout=TIMEOUT_S)
        except (RayStateApiException, OSError) as error:
            if not self._is_told:
                logger.warning("Ray does not list its actors, so no janitor leaves, and no node can: %s", error)
            self._is_told = True
            return False
        attended = {node.id for node in nodes for actor in actors if actor.name == JANITOR + node.id}
        in_use = {actor.node_id for actor in actors if not (actor.name or "").startswith(JANITOR)}
        place_janitors(self._site, [node.id for node in nodes if node.id in in_use])
        for node in attended - in_use:
            if (janitor := find_actor(JANITOR + node)) is not None:
                janitor.leave.remote()
        return True


def _place_janitor(site: Site, node: str) -> ray.ObjectRef[bool]:
    actor = detached(
        Janitor,
        JANITOR + node,
        CONCURRENCY,
        get_if_exists=True,
        max_restarts=-1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    stays: ray.ObjectRef[bool] = actor.remote(site).stay.remote()
    return stays
