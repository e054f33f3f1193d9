"""The checkpoint folder on this machine: what lies in it, read without ever following a link out of it.

A container owns the folder and may change it at any moment, also to the bad: files become links, folders move.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

UNFINISHED = (".tmp", ".part", ".incomplete")
"""Endings of names that programs give to what they are still writing."""
RESTORING = ".raymaker-restore-"
READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FileMark:
    """What changes when a file does. `ctime_ns` does so too where a program sets the file's time back."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class LocalEntry:
    """One entry of the folder: its files by their names below the folder. `left_out`: what cannot be stored, and why.

    `unfinished` names files in it that are still being written, as their names say.
    """

    name: str
    files: dict[str, FileMark] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)

    @property
    def changed_at(self) -> float:
        """When something was written to it last, in epoch seconds by this machine's clock."""
        return max((mark.mtime_ns for mark in self.files.values()), default=0) / 1e9


def scan(folder: Path, only: str | None = None) -> dict[str, LocalEntry]:
    """Look at the folder's entries (or `only` at one), without those whose names are hidden or say "unfinished"."""
    found: dict[str, LocalEntry] = {}
    for below, names, descriptor in _walk(folder, only):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    _note(found, f"{below}{name}", status)
    return found


@contextlib.contextmanager
def open_inside(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open a regular file below the folder; a link on the way to it is an OSError."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *parents, last = name.split("/")
        for parent in parents:
            below = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)
    with os.fdopen(descriptor, "rb") as content:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{name} is no longer a file")
        yield content


def path_of(content: BinaryIO) -> Path:
    """A path that leads to an open file, whatever its name leads to by now."""
    return Path(f"/dev/fd/{content.fileno()}")


def checksum(content: IO[bytes], take: Callable[[bytes], object] = len) -> tuple[int, int]:
    """Read to the end: how many bytes there were, and their CRC-32. Every piece is handed to `take`."""
    size_bytes, crc32 = 0, 0
    while piece := content.read(READ_BYTES):
        size_bytes, crc32 = size_bytes + len(piece), zlib.crc32(piece, crc32)
        take(piece)
    return size_bytes, crc32


def open_to_all(path: Path) -> None:
    """Let a container's user read and change what lies at `path`, whoever that is: images run as any user."""
    if path.is_dir():
        for root, _, files in os.walk(path):
            Path(root).chmod(0o777)
            for name in files:
                Path(root, name).chmod(0o666)
    else:
        path.chmod(0o666)


def replace_entry(made: Path, target: Path) -> None:
    """Put a finished entry in place of what lies there."""
    remove_entry(target)
    made.replace(target)


def remove_entry(path: Path) -> None:
    """Remove a file, a link or a folder with all in it; nothing there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _walk(folder: Path, only: str | None) -> Iterator[tuple[str, list[str], int]]:
    """Yield every folder's prefix below the top, the names in it, and its descriptor."""
    for root, folders, files, descriptor in os.fwalk(folder):
        below = os.path.relpath(root, folder)
        if below == ".":
            folders[:] = [name for name in folders if _is_shown(name, only)]
            yield "", [*folders, *(name for name in files if _is_shown(name, only))], descriptor
        else:
            yield f"{below}/", [*folders, *files], descriptor


def _is_shown(name: str, only: str | None) -> bool:
    return not name.startswith(".") and not name.endswith(UNFINISHED) and only in {None, name}


def _note(found: dict[str, LocalEntry], name: str, status: os.stat_result) -> None:
    entry_name = name.partition("/")[0]
    entry = found.setdefault(entry_name, LocalEntry(entry_name))
    if stat.S_ISLNK(status.st_mode):
        entry.left_out[name] = "it is a link"
    elif not stat.S_ISREG(status.st_mode):
        entry.left_out[name] = "it is a pipe, a socket or a device"
    elif not _is_text(name):
        entry.left_out[name] = "its name is not UTF-8"
    else:
        entry.files[name] = FileMark(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        if name.endswith(UNFINISHED):
            entry.unfinished.append(name)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
