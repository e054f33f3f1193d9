"""Log streams as files: one line of text per event, sought by byte offset, so that following costs only what is new.

A line is `<epoch nanoseconds> <JSON string>`; times never fall within a stream. Half a line at the end of a file (its
writer died) is not there for readers, and the next writer cuts it off. The API on top is `operations/logs`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from raymaker.actors.runtime.base import LogLine

EVENTS_PER_PAGE = 10_000
BYTES_PER_PAGE = 1024 * 1024
LONGEST_LINE_BYTES = 256 * 1024
"""CloudWatch's bounds: events and bytes of one page, bytes of one line. Longer lines are cut."""

_SUFFIX = ".log"
_LONGEST_NAME_BYTES = 250
_BLOCK_BYTES = 64 * 1024
_PAGE_READ_BYTES = 2 * BYTES_PER_PAGE
"""More than the longest line can take as JSON (six bytes for one), so that every read has a whole line."""
_TOKEN = re.compile(r"([fb])/(\d{1,18})", re.ASCII)


@dataclass(frozen=True)
class LogPage:
    """Some events, oldest first, and the tokens that go on from them in either direction."""

    events: list[LogLine]
    forward_token: str
    backward_token: str


@dataclass(frozen=True)
class LogStreamInfo:
    """A stream, its size, and the times (epoch nanoseconds, 0 where it is empty) of its first and last line."""

    name: str
    size_bytes: int
    first_ns: int
    last_ns: int


class LogStore:
    """The streams under one folder. Any number of processes may read and append."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def append(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines, without those not later than the stream's last, so that repeating a call adds nothing.

        Raises ValueError where the names are too long for files.
        """
        path = self._path(group, stream)
        if path is None:
            raise ValueError(f"the name of the log stream {group} {stream} is too long for a file; shorten it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = _line_start(file, _size(file))
            os.ftruncate(file.fileno(), end)
            file.write(b"".join(_encode_later(lines, _last_time(file, end))))

    def last_time(self, group: str, stream: str) -> int:
        """The time of the stream's last line in epoch nanoseconds; 0 where it has none."""
        try:
            return self.describe(group, stream).last_ns
        except FileNotFoundError:
            return 0

    def groups(self, prefix: str = "") -> list[str]:
        """The names of the groups that have had a line, sorted."""
        folders = (entry.name for entry in self._root.iterdir() if entry.is_dir()) if self._root.is_dir() else ()
        return sorted(name for name in map(unquote, folders) if name.startswith(prefix))

    def streams(self, group: str, prefix: str = "") -> list[str]:
        """The names of a group's streams, sorted. Raises FileNotFoundError where there is no such group."""
        folder = self._path(group, "")
        if folder is None or not folder.parent.is_dir():
            raise FileNotFoundError(group)
        files = (path.stem for path in folder.parent.iterdir() if path.suffix == _SUFFIX)
        return sorted(name for name in map(unquote, files) if name.startswith(prefix))

    def describe(self, group: str, stream: str) -> LogStreamInfo:
        """Tell a stream's size and times. Raises FileNotFoundError."""
        with self._open(group, stream) as file:
            end = _line_start(file, _size(file))
            return LogStreamInfo(stream, end, _time_at(file, 0) if end else 0, _last_time(file, end))

    def read(
        self,
        group: str,
        stream: str,
        *,
        token: str | None = None,
        limit: int = EVENTS_PER_PAGE,
        start_ms: int | None = None,
        end_ms: int | None = None,
        from_head: bool = False,
    ) -> LogPage:
        """Read a page: what follows a forward token, what comes before a backward one, else the first or last events.

        `start_ms` is inclusive, `end_ms` exclusive, in epoch milliseconds. Where nothing is left in its direction, a
        token comes back as it was. Raises FileNotFoundError, and ValueError for a token that is none.
        """
        forward, position = _parse_token(token) if token is not None else (from_head, None)
        with self._open(group, stream) as file:
            end = _line_start(file, _size(file))
            first = _seek(file, end, start_ms * 1_000_000) if start_ms is not None else 0
            last = _seek(file, end, end_ms * 1_000_000) if end_ms is not None else end
            if forward:
                begin = max(first, position or 0)
                if begin < last:
                    begin = max(first, _line_start(file, begin))
                lines = _lines_after(file, begin, last, limit)
                stop = begin + sum(map(len, lines))
            else:
                stop = last if position is None or position >= last else max(first, _line_start(file, position))
                lines = _lines_before(file, first, stop, limit)
                begin = stop - sum(map(len, lines))
        return LogPage([_decode(line) for line in lines], f"f/{stop}", f"b/{begin}")

    def _open(self, group: str, stream: str) -> BinaryIO:
        path = self._path(group, stream)
        if path is None or not path.is_file():
            raise FileNotFoundError(f"{group} {stream}")
        return path.open("rb")

    def _path(self, group: str, stream: str) -> Path | None:
        """Give the stream's file; None where the names are too long to have one."""
        folder, name = _quote(group), _quote(stream)
        if max(len(folder), len(name)) > _LONGEST_NAME_BYTES:
            return None
        return self._root / folder / f"{name}{_SUFFIX}"


def _quote(name: str) -> str:
    """Write a name as a single path segment that is neither hidden nor `..`."""
    return quote(name, safe="", errors="replace").replace(".", "%2E")


def _parse_token(token: str) -> tuple[bool, int]:
    """Split a token into whether it goes forward, and its byte offset."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise ValueError(f"{token[:50]!r} is not a token of GetLogEvents")
    return found[1] == "f", int(found[2])


def _encode_later(lines: Sequence[LogLine], last_ns: int) -> Iterator[bytes]:
    """Encode the lines later than `last_ns`, leaving out any whose time falls behind the one before it."""
    newest_ns = last_ns + 1
    for line in lines:
        if line.time_ns >= newest_ns:
            newest_ns = line.time_ns
            text = line.text.encode("utf-8", "replace")[:LONGEST_LINE_BYTES].decode("utf-8", "ignore")
            yield f"{line.time_ns} {json.dumps(text, ensure_ascii=False)}\n".encode()


def _decode(line: bytes) -> LogLine:
    """Read one whole line."""
    time_ns, text = line.split(b" ", 1)
    return LogLine(int(time_ns), json.loads(text))


def _size(file: BinaryIO) -> int:
    """The file's size in bytes."""
    return os.fstat(file.fileno()).st_size


def _line_start(file: BinaryIO, position: int) -> int:
    """The offset just behind the last newline before `position`: where the line at `position` starts."""
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _time_at(file: BinaryIO, start: int) -> int:
    """The time of the line that starts at `start`."""
    file.seek(start)
    return int(file.read(24).split(b" ", 1)[0])


def _last_time(file: BinaryIO, end: int) -> int:
    """The time of the last line before `end`, an offset behind a newline; 0 where there is none."""
    return _time_at(file, _line_start(file, end - 1)) if end else 0


def _seek(file: BinaryIO, end: int, time_ns: int) -> int:
    """Find by bisection the start of the first line not earlier than `time_ns`; `end` where there is none."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        start = _line_start(file, middle)
        if _time_at(file, start) < time_ns:
            file.seek(start)
            low = start + len(file.readline())
        else:
            high = start
    return low


def _lines_after(file: BinaryIO, begin: int, last: int, limit: int) -> list[bytes]:
    """Read the first lines of `begin` to `last` that fit a page."""
    if begin >= last:
        return []
    file.seek(begin)
    return _fit(_split(file.read(min(_PAGE_READ_BYTES, last - begin))), limit)


def _lines_before(file: BinaryIO, first: int, stop: int, limit: int) -> list[bytes]:
    """Read the last lines of `first` to `stop` that fit a page."""
    begin = max(first, stop - _PAGE_READ_BYTES)
    if begin >= stop:
        return []
    file.seek(begin)
    lines = _split(file.read(stop - begin))
    whole = lines if begin == first else lines[1:]
    return _fit(whole[::-1], limit)[::-1]


def _split(content: bytes) -> list[bytes]:
    """Split into lines with their newlines, without a last one that has none."""
    lines = content.split(b"\n")
    return [line + b"\n" for line in lines[:-1]]


def _fit(lines: list[bytes], limit: int) -> list[bytes]:
    """Take lines from the front until a page is full, but one at least."""
    size_bytes = 0
    for count, line in enumerate(lines[:limit]):
        size_bytes += len(line)
        if size_bytes > BYTES_PER_PAGE and count:
            return lines[:count]
    return lines[:limit]
