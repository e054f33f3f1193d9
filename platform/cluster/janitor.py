"""The janitor actor, one on every node: removes what no living process there owns, containers and what they leave.

It also keeps the containers that wait there for processes that start a single one and end with it, as endpoints' do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymaker.actors.pool_folders import remove_ended
from raymaker.actors.reaper import Reaper
from raymaker.actors.runtime.select import available_leftovers, available_runtimes
from raymaker.actors.runtime.standby import Standbys, waiting_containers
from raymaker.actors.site import Site
from raymaker.actors.spec import ContainerSpec
from raymaker.platform.cluster.node_standbys import JANITOR
from raymaker.platform.cluster.reporter import ControlReporter
from raymaker.platform.cluster.workers import detached

logger = logging.getLogger(__name__)

STEP_S = 3.0
CONCURRENCY = 8


def living_nodes() -> frozenset[str]:
    """Name the cluster's nodes that live now."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def place_janitors(site: Site, nodes: Iterable[str]) -> list[ray.ObjectRef[bool]]:
    """See that each of these nodes has its janitor. Returns what is answered once they are there."""
    return [_place_janitor(site, node) for node in nodes]


class Janitor:
    """Runs the reaper for as long as it lives. Ray makes it again when it dies."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._standbys = Standbys(site.home, site.standby_count)
        self._was_asked = threading.Event()
        threading.Thread(target=self._sweep, name="janitor", daemon=True).start()
        threading.Thread(target=self._sweep_pools, name="pool-janitor", daemon=True).start()
        threading.Thread(target=self._replenish, name="standbys", daemon=True).start()

    def ready(self) -> bool:
        """Answer: the janitor is there."""
        return True

    def start_container(self, spec: ContainerSpec) -> str | None:
        """Have one that waits become this container; one like it will wait for the next. See WaitingContainers."""
        self._was_asked.set()
        return self._standbys.start(spec)

    def waiting_containers(self) -> list[tuple[str, float]]:
        """Tell which wait on this node, for whomever: their images, and when they were made (epoch s)."""
        return waiting_containers(self._site.home) if self._site.standby_count else []

    def _sweep(self) -> None:
        driver, home = self._site.driver, self._site.home
        reaper = Reaper(
            available_runtimes(driver, home),
            home,
            self._site.reap_after_s,
            leftovers=available_leftovers(driver, home),
        )
        while True:
            try:
                for name in reaper.step(time.time()):
                    logger.warning("removed %s: its owner is dead", name)
            except Exception:
                logger.exception("a sweep failed; the next one tries again")
            time.sleep(STEP_S)

    def _sweep_pools(self) -> None:
        """Remove what warm pools that have ended left. A thread of its own, as it waits for the control actor."""
        reporter = ControlReporter()
        while True:
            try:
                for name in remove_ended(self._site.warm_pools, reporter.living_pools):
                    logger.info("removed what warm pool %s left: it has ended", name)
            except Exception:
                logger.exception("a sweep of warm pools failed; the next one tries again")
            time.sleep(STEP_S)

    def _replenish(self) -> None:
        """Have others wait in the place of those that were taken, a moment later: what took one is still starting."""
        while self._was_asked.wait():
            time.sleep(STEP_S)
            self._was_asked.clear()
            try:
                self._standbys.replenish()
            except Exception:
                logger.exception("making containers wait failed; it is tried again when the next is wanted")


def _place_janitor(site: Site, node: str) -> ray.ObjectRef[bool]:
    actor = detached(
        Janitor,
        JANITOR + node,
        CONCURRENCY,
        get_if_exists=True,
        max_restarts=-1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    ready: ray.ObjectRef[bool] = actor.remote(site).ready.remote()
    return ready
