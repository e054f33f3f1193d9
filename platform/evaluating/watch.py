"""Which checkpoints running jobs have stored, looked for on threads: no slow store holds anybody up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

from raymaker.actors.checkpoints.stored import StoredCheckpoint
from raymaker.actors.errors import StorageError

logger = logging.getLogger(__name__)

Listing = Sequence[StoredCheckpoint]
"""The whole checkpoints of one location, newest first."""
LOOK_S = 5.0
"""How often a location is looked at, where nobody says that there is something new."""
THREADS = 4


@dataclass
class _Place:
    looked_at: float = float("-inf")
    looking: Future[Listing] | None = None
    is_due: bool = False
    found: Listing = ()


class CheckpointWatch:
    """Remembers the last listing of each location. `look` lists one, and may take long or raise StorageError.

    `on_looked` is called when a listing is there.
    """

    def __init__(
        self,
        look: Callable[[str], Listing],
        on_looked: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        threads: Executor | None = None,
    ) -> None:
        self._look = look
        self._on_looked = on_looked
        self._clock = clock
        self._threads = threads or ThreadPoolExecutor(THREADS, "checkpoint-watch")
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()

    def newest(self, uri: str) -> Listing:
        """Return what was found last, newest first, and see that it is looked again in time. Never blocks."""
        with self._lock:
            place = self._places.setdefault(uri, _Place())
            if place.looking is not None and place.looking.done():
                place.found, place.looking = self._take(uri, place), None
            if place.looking is None and (place.is_due or self._clock() - place.looked_at >= LOOK_S):
                place.looked_at, place.is_due = self._clock(), False
                place.looking = self._threads.submit(self._look, uri)
                place.looking.add_done_callback(lambda _: self._on_looked())
            return place.found

    def hurry(self) -> None:
        """Hear that there is something new somewhere."""
        with self._lock:
            for place in self._places.values():
                place.is_due = True

    def keep_only(self, uris: Collection[str]) -> None:
        """Forget all other locations."""
        with self._lock:
            self._places = {uri: place for uri, place in self._places.items() if uri in uris}

    @staticmethod
    def _take(uri: str, place: _Place) -> Listing:
        assert place.looking is not None
        try:
            return place.looking.result()
        except StorageError as error:
            logger.warning("the checkpoints at %s cannot be listed for now: %s", uri, error)
        except Exception:
            logger.exception("the checkpoints at %s could not be listed", uri)
        return place.found
