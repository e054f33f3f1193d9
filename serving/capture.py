"""Data capture: takes sampled exchanges without ever waiting, and writes them behind the answers from a thread.

What waits to be written is bounded, in bytes and in number. What is more, and what cannot be written, is lost: it is
counted and told, and no answer suffers from it.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

from raymaker.actors.errors import WorkError
from raymaker.actors.storage import ObjectStore, StoreConfig, child_uri
from raymaker.serving.backend import Invocation, Scored
from raymaker.serving.capture_record import Exchange, document_of, encode_file, file_name, folder_of
from raymaker.serving.spec import CaptureSpec, EndpointSpec

logger = logging.getLogger(__name__)

HELD_BYTES = 64 * 1024 * 1024
HELD_COUNT = 20_000
FLUSH_BYTES = 4 * 1024 * 1024
FLUSH_S = 10.0
"""How long the first exchange of a file waits for others, where they do not fill it before."""
BREATH_COUNT = 20
BREATH_S = 0.002
"""How many exchanges are laid out at a stretch, and how long a pause follows."""
TELL_EVERY_S = 60.0
LAST_FLUSH_S = 15.0
STORE_RETRY_S = 10.0
"""How long one write bears with a store that is away: what waits meanwhile is held in memory."""

Write = Callable[[str, bytes], None]
BY_HOUR = attrgetter("hour")


def open_capture(spec: EndpointSpec, store: StoreConfig, tell: Callable[[str], None]) -> Capture | None:
    """Begin to capture what an endpoint is asked to; None where that is nothing."""
    if spec.capture is None or not spec.capture.sampled_share:
        return None
    write = ObjectStore(dataclasses.replace(store, retry_s=STORE_RETRY_S)).write_bytes
    capture = Capture(spec.capture, spec.endpoint_name, write, tell)
    capture.start()
    return capture


class Capture:
    """What one replica captures. `write` puts an object at a URI and raises WorkError; `tell` hears of losses."""

    def __init__(
        self,
        spec: CaptureSpec,
        endpoint_name: str,
        write: Write,
        tell: Callable[[str], None],
        *,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        held_bytes: int = HELD_BYTES,
        held_count: int = HELD_COUNT,
    ) -> None:
        self._spec = spec
        self._endpoint_name = endpoint_name
        self._write = write
        self._tell = tell
        self._now = now
        self._chance = chance
        self._limits = held_bytes, held_count
        self._lock = threading.Lock()
        self._waiting: list[Exchange] = []
        self._held_bytes = 0
        self._held_count = 0
        """What waits, and what is being written."""
        self._arrived = threading.Event()
        self._due = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._told_count = 0
        self._told_at = 0.0
        self.lost_count = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def wants_one(self) -> bool:
        """Draw whether the next exchange is captured."""
        return self._chance() < self._spec.sampled_share

    def sample(self, invocation: Invocation, scored: Scored) -> None:
        """Capture what was asked and answered just now, if it is drawn. Never blocks."""
        if self.wants_one():
            self.offer(
                Exchange(self._now(), scored.variant, invocation.headers, invocation.body, scored.headers, scored.body)
            )

    def offer(self, exchange: Exchange) -> None:
        """Take an exchange to be written some time. Never blocks; what there is no room for is lost."""
        size_bytes = exchange.size_bytes
        with self._lock:
            if self._held_bytes + size_bytes > self._limits[0] or self._held_count >= self._limits[1]:
                self.lost_count += 1
            else:
                self._waiting.append(exchange)
                self._held_bytes += size_bytes
                self._held_count += 1
            is_due = self._held_bytes >= FLUSH_BYTES
        if not self._arrived.is_set():
            self._arrived.set()
        if is_due:
            self._due.set()

    def lose_one(self) -> None:
        """Count an exchange that was to be captured and could not be kept whole."""
        with self._lock:
            self.lost_count += 1
        self._arrived.set()

    def close(self) -> None:
        """Write what waits, and return once it is written or `LAST_FLUSH_S` are over."""
        self._over.set()
        self._arrived.set()
        self._due.set()
        self._thread.join(LAST_FLUSH_S)

    def flush(self) -> None:
        """Write what waits, a file for each variant and hour. Loses what cannot be written."""
        with self._lock:
            taken, self._waiting = self._waiting, []
        trouble = "more came than could be written"
        for _, exchanges in groupby(sorted(taken, key=BY_HOUR), BY_HOUR):
            batch = list(exchanges)
            failure = self._write_file(batch)
            trouble = failure or trouble
            with self._lock:
                self._held_bytes -= sum(exchange.size_bytes for exchange in batch)
                self._held_count -= len(batch)
                self.lost_count += len(batch) if failure else 0
        self._tell_losses(trouble)

    def _run(self) -> None:
        """Write a while after something came; where nothing comes, this costs nothing."""
        while not self._over.is_set():
            self._arrived.wait()
            self._due.wait(FLUSH_S)
            self._arrived.clear()
            self._due.clear()
            self.flush()
        self._told_at = 0.0
        self.flush()

    def _write_file(self, exchanges: list[Exchange]) -> str | None:
        """Write one file, of exchanges of one folder. Returns why that failed, None where it did not."""
        form = self._spec.format
        folder = folder_of(self._endpoint_name, exchanges[0].variant, exchanges[0].time)
        try:
            content = encode_file(self._documents(exchanges), form)
            self._write(child_uri(child_uri(self._spec.destination_uri, folder), file_name(self._now(), form)), content)
        except WorkError as error:
            return str(error)
        except Exception as error:
            logger.exception("capturing for %s failed", self._endpoint_name)
            return repr(error)
        return None

    def _documents(self, exchanges: list[Exchange]) -> Iterator[dict[str, Any]]:
        """Lay exchanges out, with pauses: the replica's answers wait for the interpreter while this runs."""
        for number, exchange in enumerate(exchanges, start=1):
            yield document_of(exchange, self._spec)
            if number % BREATH_COUNT == 0:
                self._over.wait(BREATH_S)

    def _tell_losses(self, trouble: str) -> None:
        """Tell of what was lost since this was told last, but not all the time."""
        lost_count, now = self.lost_count - self._told_count, self._now()
        if lost_count and now - self._told_at >= TELL_EVERY_S:
            self._told_count, self._told_at = self.lost_count, now
            self._tell(f"{lost_count} captured record(s) were lost: {trouble}")
