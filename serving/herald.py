"""Calls that may block for long, made off the event loop. What they say, and to whom, is the caller's."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

LAST_WORDS_S = 5.0


class Herald:
    """Makes calls that may block for long, in order, on a thread of its own."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="herald", daemon=True)
        self._thread.start()

    def tell(self, call: Callable[[], None]) -> None:
        """Have `call` made, some time. Never blocks."""
        self._calls.put(call)

    def finish(self) -> None:
        """Wait a little for what was not told yet."""
        self._calls.put(None)
        self._thread.join(LAST_WORDS_S)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                logger.exception("a report was lost")
