"""How far streamed channels are, told while the containers run: passes, bytes and their rate, for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from raymaker.actors.background import Background
from raymaker.actors.channels.stream import Streams
from raymaker.actors.reports import ReportRefused

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
"""Each word is an event of the job, so they become rarer."""
MIB = 1024 * 1024


class StreamNews(Background):
    """Tells `tell` until the block ends how far streams are, where they have come further."""

    def __init__(self, streams: Streams, tell: Callable[[str], None]) -> None:
        super().__init__("stream-news")
        self._streams = streams
        self._tell = tell

    def _run(self) -> None:
        if not self._streams.pass_counts():
            return
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
