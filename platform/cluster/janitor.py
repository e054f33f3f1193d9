"""The janitor actor, one on every node: removes what no living process there owns, containers and what they leave.

It also keeps the containers that wait there for processes that start a single one and end with it, as endpoints' do.
"""

from __future__ import annotations

import logging
import threading
import time

import ray

from raymaker.actors.pool_folders import has_pools, remove_ended
from raymaker.actors.reaper import Reaper
from raymaker.actors.runtime.select import available_leftovers, available_runtimes
from raymaker.actors.runtime.standby import Standbys, waiting_containers
from raymaker.actors.site import Site
from raymaker.actors.spec import ContainerSpec
from raymaker.platform.cluster.reporter import ControlReporter

logger = logging.getLogger(__name__)

STEP_S = 3.0


class Janitor:
    """Runs the reaper until it is to leave and nothing is left to remove. Ray makes it again when it dies."""

    def __init__(self, site: Site) -> None:
        self._self = ray.get_runtime_context().current_actor
        self._site = site
        self._is_leaving = False
        self._standbys = Standbys(site.home, site.standby_count)
        self._was_asked = threading.Event()
        threading.Thread(target=self._sweep, name="janitor", daemon=True).start()
        threading.Thread(target=self._sweep_pools, name="pool-janitor", daemon=True).start()
        threading.Thread(target=self._replenish, name="standbys", daemon=True).start()

    def stay(self) -> bool:
        """Remain here; an answer means that it does."""
        self._is_leaving = False
        return True

    def leave(self) -> None:
        """Have no container wait here, and end once all of this platform is removed from the node."""
        self._is_leaving = True
        self._standbys.close()

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
                if self._is_leaving and reaper.found_nothing and not has_pools(self._site.warm_pools):
                    ray.kill(self._self, no_restart=True)
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
