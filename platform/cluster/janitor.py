"""The janitor actor, one on every node: removes the containers there that no living process owns."""

from __future__ import annotations

import logging
import threading
import time

from raymaker.actors.reaper import Reaper
from raymaker.actors.runtime.select import available_runtimes
from raymaker.actors.site import Site

logger = logging.getLogger(__name__)

STEP_S = 3.0


class Janitor:
    """Runs the reaper for as long as it lives. Ray makes it again when it dies."""

    def __init__(self, site: Site) -> None:
        self._site = site
        threading.Thread(target=self._sweep, name="janitor", daemon=True).start()

    def ready(self) -> bool:
        """Answer: the janitor is there."""
        return True

    def _sweep(self) -> None:
        reaper = Reaper(
            available_runtimes(self._site.driver, self._site.home), self._site.home, self._site.reap_after_s
        )
        while True:
            try:
                for name in reaper.step(time.time()):
                    logger.warning("removed container %s: its owner is dead", name)
            except Exception:
                logger.exception("a sweep failed; the next one tries again")
            time.sleep(STEP_S)
