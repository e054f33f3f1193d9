"""Keeps a transform job's scoring container alive on one machine: started, watched, started again when it dies.

Blocks, on threads of its own. Who sends what to it is `calls.py`'s matter.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from raymaker.actors.errors import WorkError
from raymaker.actors.scoring import Address, ScoringContainer

logger = logging.getLogger(__name__)

FAILED_STARTS = 3
"""Starts in a row that fail before the container is given up."""
SILENT_DEATHS = 20
"""Deaths in a row without one answer in between before it is given up: more than one bad payload can cause."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class WatchedContainer:
    """One container that is to answer for as long as its job needs it.

    `on_address` hears where it answers, None while it does not; `on_lost` why it was given up; `tell` what happened, in
    words for the job's owner. `answer_count` says how many answers it has given.
    """

    def __init__(
        self,
        container: ScoringContainer,
        *,
        on_address: Callable[[Address | None], None],
        on_lost: Callable[[Exception], None],
        tell: Callable[[str], None],
        answer_count: Callable[[], int],
    ) -> None:
        self._container = container
        self._on_address = on_address
        self._on_lost = on_lost
        self._tell = tell
        self._answer_count = answer_count
        self._answers_seen = 0
        self._deaths = 0
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="transform-container", daemon=True)

    def watch(self, address: Address) -> None:
        """Begin to watch the container, which has just come up at `address`."""
        self._on_address(address)
        self._watcher.start()

    def replace(self) -> None:
        """End a container that no longer answers; the watcher starts another."""
        if not self._stopping.is_set():
            self._tell("The scoring container answers nobody any more, and is replaced")
            self._container.kill()

    def stop(self) -> None:
        """End the container with grace, and leave nothing of it behind."""
        self._stopping.set()
        self._container.stop()
        if self._watcher.is_alive():
            self._watcher.join()
        self._container.remove()

    def _watch(self) -> None:
        while True:
            how = self._wait_for_end()
            if self._stopping.is_set():
                return
            self._on_address(None)
            self._tell(f"The scoring container ended and is started again: {how}")
            self._count_death()
            if self._deaths > SILENT_DEATHS:
                self._on_lost(WorkError(f"the scoring container ended {self._deaths} times without an answer: {how}"))
                return
            if not self._start_again():
                return

    def _wait_for_end(self) -> str:
        """Wait for the container's end. While its engine is away it may well live: it is then waited for again."""
        while True:
            try:
                return self._container.wait()
            except Exception as error:  # whatever the engine's client comes up with
                if self._stopping.wait(FIRST_PAUSE_S):
                    return "it was stopped"
                logger.warning("waiting for the scoring container was interrupted: %s", error)

    def _count_death(self) -> None:
        answers = self._answer_count()
        self._deaths = 1 if answers > self._answers_seen else self._deaths + 1
        self._answers_seen = answers

    def _start_again(self) -> bool:
        """Start the container, later and later the more often it died; False where it was stopped or given up."""
        for failed_count in range(FAILED_STARTS):
            if self._stopping.wait(pause_before(self._deaths + failed_count)):
                return False
            try:
                self._on_address(self._container.start())
            except Exception as error:
                if self._stopping.is_set():
                    return False
                self._tell(f"The scoring container could not be started again: {error}")
                lost = error
            else:
                return True
        self._on_lost(lost)
        return False


def pause_before(death_count: int) -> float:
    """Return how long to wait before a start: nothing after the first death, then twice as long each time."""
    return 0.0 if death_count <= 1 else float(min(FIRST_PAUSE_S * 2 ** (death_count - 2), LONGEST_PAUSE_S))
