"""The engine's log as LogLines: times with nanoseconds, long lines put together, odd bytes replaced. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from raymaker.actors.runtime.base import LogLine

LINE_LIMIT_BYTES = 256 * 1024
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
NS_PER_S = 1_000_000_000


def parse_log(entries: Iterable[bytes]) -> Iterator[LogLine]:
    """Turn the engine's entries, `<RFC 3339 time> <text>`, into lines.

    An entry without a newline at its end is a part of a long line, or the last thing that was said. Equal times are
    told apart by a nanosecond, the same way at each reading, so that a reader can go on after the last time it saw.
    """
    last_ns, begun_ns, pending = 0, 0, b""
    for entry in entries:
        stamp, _, text = entry.partition(b" ")
        time_ns = parse_time_ns(stamp.decode(errors="replace"))
        begun_ns = begun_ns if pending else time_ns
        pending += text
        while pending and (pending.endswith(b"\n") or len(pending) >= LINE_LIMIT_BYTES):
            line, pending = pending[:LINE_LIMIT_BYTES], pending[LINE_LIMIT_BYTES:]
            last_ns = max(begun_ns, last_ns + 1)
            yield _line(last_ns, line)
    if pending:
        yield _line(max(begun_ns, last_ns + 1), pending)


def parse_time_ns(text: str) -> int:
    """Read an RFC 3339 time as epoch nanoseconds. Raises ValueError."""
    match = TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"the engine wrote {text!r} where a time was expected")
    whole_s = int(datetime.fromisoformat(match[1] + match[3]).timestamp())
    return whole_s * NS_PER_S + int((match[2] or "0").ljust(9, "0"))


def _line(time_ns: int, raw: bytes) -> LogLine:
    return LogLine(time_ns, raw.removesuffix(b"\n").decode(errors="replace"))
