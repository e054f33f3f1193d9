"""This machine's cache of objects, by what they are and in which version, so that the next job need not fetch them.

An entry is one file whose name says all: which object (its store, bucket and key), which version, and its checksum. It
appears under that name once it is whole and checked. Its time has a stamp in it: a file that was written to since, or
that was not yet safely on the disk when the machine went down, is found out and added up once more, or goes.
Nothing here decides who may read what: whoever takes an entry has asked the store for the object first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from raymaker.actors.channels.transfers import file_checksum
from raymaker.actors.ranges import Checksum
from raymaker.actors.storage import PinnedObject

LOOK_S = 0.2
"""How often whoever waits for another looks."""
KEPT_FREE_SHARE = 0.05
"""How much of the disk the cache leaves free."""
ENTRY = re.compile(r"(?P<key>[0-9a-f]{40})-(?P<version>[0-9a-f]{32})-(?P<algorithm>[a-z0-9]+)-(?P<value>[0-9a-f]+)")
PART = re.compile(r"\.(?P<key>[0-9a-f]{40})\.part")
NANOSECONDS = 10**9
BOOT = Path("/proc/sys/kernel/random/boot_id")
ACCOUNTS = "accounts"
"""The lock of whoever counts and removes."""

Waiting = Callable[[int], None]
"""Hears, while another brings an object, how many bytes of it are here."""


@dataclass(frozen=True)
class Entry:
    """A whole object in the cache. It stays while its slot is held."""

    path: Path
    version: str
    """As short as it is kept."""
    checksum: Checksum
    size_bytes: int


class ObjectCache:
    """The cache in one folder, which any process of the machine may use at once. With `limit_bytes` 0 it is off."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._boot = BOOT.read_text().strip() if BOOT.exists() else ""

    @classmethod
    def off(cls) -> ObjectCache:
        """A cache that keeps nothing."""
        return cls(Path("/nonexistent"), 0)

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._limit_bytes > 0

    def knows(self, name: str) -> bool:
        """Tell whether there is an entry of an object, in whichever version."""
        key = _key(name)
        return _find(key, self._folder / key[:2]) is not None

    @contextlib.contextmanager
    def slot(self, name: str, on_waiting: Waiting) -> Iterator[Slot]:
        """Hold the place of one object, alone: another who wants it waits, and finds what was brought."""
        key = _key(name)
        part = self._folder / key[:2] / f".{key}.part"
        with self._locked(key, lambda: on_waiting(_blocks_bytes(part))) as lock:
            part.parent.mkdir(mode=0o700, exist_ok=True)
            yield Slot(key, part, lock, self._boot)

    def make_room(self, wanted_bytes: int, spared: Collection[str] = ()) -> int:
        """Remove what was used longest ago until so much more has room; returns how much of it has.

        Stays within the limit, and leaves some of the disk free. What is in use stays, and so do the objects `spared`.
        """
        keys = {_key(name) for name in spared}
        with self._locked(ACCOUNTS, lambda: None):
            files = sorted(self._files(), key=lambda it: it.used_at)
            room_bytes = self._room_bytes(sum(it.size_bytes for it in files))
            for file in files:
                if room_bytes >= wanted_bytes:
                    break
                if file.key not in keys and not file.is_shared and self._remove(file):
                    room_bytes += file.size_bytes
        return max(0, min(wanted_bytes, room_bytes))

    def _room_bytes(self, held_bytes: int) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = shutil.disk_usage(self._folder)
        return min(self._limit_bytes - held_bytes, disk.free - int(KEPT_FREE_SHARE * disk.total))

    def _files(self) -> Iterator[_File]:
        for folder in _scan(self._folder):
            for file in _scan(Path(folder.path)) if folder.is_dir() else ():
                found = ENTRY.fullmatch(file.name) or PART.fullmatch(file.name)
                if found is not None:
                    with contextlib.suppress(FileNotFoundError):
                        status = file.stat()
                        is_shared = status.st_nlink > 1
                        yield _File(Path(file.path), found["key"], status.st_size, status.st_atime, is_shared)

    def _remove(self, file: _File) -> bool:
        """Remove a file, unless somebody is at it."""
        with contextlib.suppress(BlockingIOError), self._locked(file.key, None):
            file.path.unlink(missing_ok=True)
            return True
        return False

    @contextlib.contextmanager
    def _locked(self, key: str, on_waiting: Callable[[], None] | None) -> Iterator[int]:
        """Hold the lock of one object, a byte of one file. Raises BlockingIOError where it may not wait for it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "locks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            pause = threading.Event()
            while True:
                try:
                    _lock(descriptor, key, fcntl.F_WRLCK)
                    break
                except BlockingIOError:
                    if on_waiting is None:
                        raise
                on_waiting()
                pause.wait(LOOK_S)
            yield descriptor
        finally:
            os.close(descriptor)


class Slot:
    """The place of one object, held."""

    def __init__(self, key: str, part: Path, lock: int, boot: str) -> None:
        self._key = key
        self._lock = lock
        self._boot = boot
        self.part = part
        """Where to write the object before it is an entry."""

    def is_known(self) -> bool:
        """Tell whether the object is here, in whichever version."""
        return _find(self._key, self.part.parent) is not None

    def find(self, version: str, size_bytes: int) -> Entry | None:
        """Find the object in this very version; an entry that is not to be trusted, or of another version, goes."""
        entry = _find(self._key, self.part.parent)
        if entry is None:
            return None
        if (entry.version, entry.size_bytes) == (_shorten(version), size_bytes) and self._is_sound(entry):
            os.utime(entry.path, ns=(time.time_ns(), entry.path.stat().st_mtime_ns))
            return entry
        entry.path.unlink()
        return None

    def publish(self, item: PinnedObject, modified_at: float, checksum: Checksum) -> Entry:
        """Make what was written to `part` the object's entry."""
        if (older := _find(self._key, self.part.parent)) is not None:
            older.path.unlink()
        version = _shorten(str(item.version))
        target = self.part.with_name(f"{self._key}-{version}-{checksum.algorithm}-{checksum.value}")
        self.part.chmod(0o644)
        self._stamp(self.part, target.name, modified_at or time.time())
        self.part.rename(target)
        return Entry(target, version, checksum, item.size_bytes)

    def share(self) -> None:
        """Let others take the entry too, while it is only read from here on."""
        _lock(self._lock, self._key, fcntl.F_RDLCK)

    def _is_sound(self, entry: Entry) -> bool:
        path, status = entry.path, entry.path.stat()
        if status.st_mtime_ns % NANOSECONDS == _stamp_of(path.name, self._boot):
            return True
        with path.open("rb") as file:
            is_whole = file_checksum(file.fileno(), entry.checksum.algorithm) == entry.checksum
        if is_whole:
            self._stamp(path, path.name, status.st_mtime)
        return is_whole

    def _stamp(self, path: Path, name: str, modified_at: float) -> None:
        os.utime(path, ns=(time.time_ns(), int(modified_at) * NANOSECONDS + _stamp_of(name, self._boot)))


@dataclass(frozen=True)
class _File:
    path: Path
    key: str
    size_bytes: int
    used_at: float
    is_shared: bool
    """Whether a job sees it too, so that removing it here would free nothing."""


def _find(key: str, folder: Path) -> Entry | None:
    """Find an object's entry."""
    for file in _scan(folder):
        found = ENTRY.fullmatch(file.name) if file.name.startswith(key) else None
        if found is not None:
            with contextlib.suppress(FileNotFoundError):
                checksum = Checksum(found["algorithm"], found["value"])
                return Entry(Path(file.path), found["version"], checksum, file.stat().st_size)
    return None


def _stamp_of(name: str, boot: str) -> int:
    """The nanoseconds in the time of an entry that is as it was when it was made or last added up, in this boot."""
    return int.from_bytes(hashlib.sha256(f"{boot} {name}".encode()).digest()[:8], "big") % NANOSECONDS


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:40]


def _shorten(version: str) -> str:
    return hashlib.sha256(version.encode()).hexdigest()[:32]


def _lock(descriptor: int, key: str, kind: int) -> None:
    """Take or change a lock that belongs to this open file, whatever else this process has open."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, start, 1, 0))


def _blocks_bytes(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
