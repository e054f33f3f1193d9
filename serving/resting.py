"""Rest: a replica that nobody asks is without its containers, keeps their models, and starts them for whoever asks.

That takes as long as its containers take, where an endpoint that sleeps has no replica either.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable

from raymaker.serving.activity import Load, report_period_s
from raymaker.serving.kept_container import KeptContainer

logger = logging.getLogger(__name__)


class Rest:
    """Has the containers of one replica rest when it was not asked for `idle_s`. Belongs to one event loop."""

    def __init__(
        self, containers: Collection[KeptContainer], load: Load, pending: Callable[[], int], idle_s: float
    ) -> None:
        self._containers = containers
        self._load = load
        self._pending = pending
        self._idle_s = idle_s
        self._busy_at = 0.0
        self._waking: set[asyncio.Task[None]] = set()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        """Have none rest any more."""
        self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(report_period_s(self._idle_s))
            now = time.time()
            if self._pending():
                self._busy_at = now
            elif now - max(self._busy_at, self._load.last_request_at) >= self._idle_s:
                # All of them before anything else can run here: no request comes between the look and this.
                await _all("come to rest", [each.rest(self._wake) for each in self._containers])

    def _wake(self) -> None:
        """Start all that rest: where one is asked, the others will be."""
        waking = asyncio.create_task(_all("rise", [each.rise() for each in self._containers]))
        self._waking.add(waking)  # the loop itself does not keep it
        waking.add_done_callback(self._waking.discard)


async def _all(what: str, works: Iterable[Awaitable[None]]) -> None:
    """Do all of it; what fails of it is logged."""
    for problem in filter(None, await asyncio.gather(*works, return_exceptions=True)):
        logger.warning("a container did not %s: %s", what, problem)
