"""Channels that every container gets whole: fetched once on each machine, whoever of a job's instances comes first.

They stay from one start of an attempt to the next, and go when the last instance that uses them lets go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from raymaker.actors.mounting import empty_tree, remove_tree


class SharedChannels:
    """The channels of one attempt on one machine. Hold it while they are used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def hold(self) -> None:
        """Keep the channels from being removed, until `release`."""
        while self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):  # removed by the last user in between
                if os.path.samestat(os.fstat(descriptor), self.folder.stat()):
                    self._lock = descriptor
                    return
            os.close(descriptor)

    def is_held(self) -> bool:
        """Tell whether anybody holds the channels at this moment."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def fetch(self, name: str, fetch: Callable[[Path], None]) -> None:
        """Have `fetch` bring a channel to its folder, unless it is there; a fetch that was cut short begins anew."""
        done, target = self.folder / f".{name}.done", self.folder / name
        with self._only_one(name):
            if done.exists():
                return
            empty_tree(target)
            fetch(target)
            done.touch()

    def release(self) -> None:
        """Let go; whoever does so last removes them. Releasing twice does nothing."""
        if self._lock is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            remove_tree(self.folder)
        os.close(self._lock)
        self._lock = None

    @contextlib.contextmanager
    def _only_one(self, name: str) -> Iterator[None]:
        with (self.folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
