"""Who owns a container: the process that holds its lease, a lock that the kernel takes back when that process dies.

No clock, no heartbeat, no renewal: at most one living process per lease, by the kernel's word, on one machine.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

RETRY_S = 0.02


class LeaseHeld(Exception):
    """Another living process, or another part of this one, holds the lease."""


class Lease:
    """A held lease. Made by `acquire`; let go by `release`, or by the death of this process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, home: Path, name: str, timeout_s: float = 0.0) -> Lease:
        """Take the lease `name`, waiting up to `timeout_s` for its holder to let go. Raises LeaseHeld."""
        path = _path(home, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        while (descriptor := _try_lock(path)) is None:
            if time.monotonic() >= deadline:
                raise LeaseHeld(f"lease {name} is held by {_holder(path)}: it must end before another can take over")
            time.sleep(RETRY_S)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())  # for people; the lock alone says who owns
        return cls(path, descriptor)

    def release(self) -> None:
        """Let go, and remove the file. Releasing twice does nothing."""
        if self._descriptor is None:
            return
        self._path.unlink(missing_ok=True)  # while it is locked, so that nobody locks a file that is on its way out
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_held(home: Path, name: str) -> bool:
    """Tell whether a living process holds the lease."""
    try:
        descriptor = os.open(_path(home, name), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)  # shared, so that those who ask at once do not see each other
    finally:
        os.close(descriptor)


def abandoned_leases(home: Path) -> list[str]:
    """Name the leases whose holders died without letting go: their files are there, and nobody holds them."""
    try:
        names = [path.name for path in (home / "leases").iterdir()]
    except FileNotFoundError:
        return []
    return [name for name in sorted(names) if not is_held(home, name)]


def _path(home: Path, name: str) -> Path:
    if "/" in name or "\0" in name or name in {"", ".", ".."}:
        raise ValueError(f"{name!r} cannot name a lease")
    return home / "leases" / name


def _try_lock(path: Path) -> int | None:
    """Open and lock the file; None where another holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            is_locked = _lock_at_once(descriptor)
            if is_locked and _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not is_locked:
            return None


def _lock_at_once(descriptor: int) -> bool:
    """Lock it; False where another holds it. Those who only ask, as `is_held` does, are gone at the next try."""
    while not _flock(descriptor, fcntl.LOCK_EX):
        if not _flock(descriptor, fcntl.LOCK_SH):
            return False
    return True


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Tell whether this open file is still the one of that name: a holder that lets go removes the file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        return f"process {path.read_text() or '?'}"
    except OSError:
        return "another process"
