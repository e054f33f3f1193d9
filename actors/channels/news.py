"""How far streamed channels are, told while the containers run: passes, bytes and their rate, for people."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from raymaker.actors.channels.stream import Streams
from raymaker.actors.reports import ReportRefused

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
"""Each word is an event of the job, so they become rarer."""
MIB = 1024 * 1024


class StreamNews:
    """Tells `tell` until the block ends how far streams are, where they have come further."""

    def __init__(self, streams: Streams, tell: Callable[[str], None]) -> None:
        self._streams = streams
        self._tell = tell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream-news", daemon=True)

    def __enter__(self) -> Self:
        if self._streams.pass_counts():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=30)

    def _run(self) -> None:
        pause_s, last_at, last = FIRST_PAUSE_S, time.monotonic(), self._streams.delivered_bytes()
        while not self._over.wait(pause_s):
            now, delivered = time.monotonic(), self._streams.delivered_bytes()
            if delivered != last:
                try:
                    self._tell(describe(self._streams.pass_counts(), last, delivered, now - last_at))
                except ReportRefused:
                    return  # the attempt itself will hear that too
            pause_s, last_at, last = min(2 * pause_s, LONGEST_PAUSE_S), now, delivered


def describe(pass_counts: Mapping[str, int], last: Mapping[str, int], now: Mapping[str, int], passed_s: float) -> str:
    """Say how far channels are, that had delivered `last` bytes `passed_s` ago and `now` bytes at this moment."""
    return "; ".join(
        f"Channel {name}: pass {pass_counts[name]}, {count // MIB} MiB delivered, "
        f"{(count - last[name]) / passed_s / MIB:.1f} MiB/s"
        for name, count in now.items()
    )
