"""Named pipes in a container's folder: made, opened when a reader comes, and written to no faster than it reads.

The folder is the container's to write to, so a name in it is never followed to anywhere else. What is written, and
when a pass over the data ends, is for `stream.py` to say.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import struct
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from raymaker.actors.errors import StorageError

PIPE_BYTES = 1024 * 1024
"""How much a pipe holds, where the system lets this account have so much."""
LOOK_MS = 500
SMALL_BYTES = 8 * 1024
"""What is gathered before it is written: a pipe holds few pieces, however small they are."""
GATHERED_BYTES = 64 * 1024
MOST_PIECES_COUNT = 1024
"""What Linux takes in one call."""
DRAIN_LOOK_S = 0.002


class ReaderLeft(Exception):
    """The reader has closed the pipe, and wants no more of this pass."""


class Aborted(Exception):
    """Nobody wants the stream any more."""


class Pipes:
    """The pipes `<channel>_0`, `<channel>_1`, … of one container."""

    def __init__(self, folder: Path, channel: str) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._channel = channel
        self._lock = threading.Lock()
        self._awaited: str | None = None
        self._stand_in: int | None = None
        self.is_over = threading.Event()

    def make(self, epoch: int) -> None:
        """Have the pipe of a pass be there, which a reader of any user may open."""
        name = self._name(epoch)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(name, dir_fd=self._folder)
        with self._found(name) as place:
            Path(place).chmod(0o666)  # not through mkfifo, which obeys the umask

    def open(self, epoch: int) -> PipeWriter:
        """Wait for a reader, and open the pipe of a pass. Raises Aborted, and StorageError where it is no pipe."""
        with self._found(self._name(epoch)) as place:
            with self._lock:
                self._awaited = place
            try:
                if self.is_over.is_set():
                    raise Aborted
                descriptor = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
            finally:
                with self._lock:
                    self._awaited = None
        if self.is_over.is_set():
            os.close(descriptor)
            raise Aborted
        return PipeWriter(descriptor, self.is_over)

    def remove(self, epoch: int) -> None:
        """Take the pipe of a pass away that is over: who opens it again is told, instead of waiting for good."""
        with contextlib.suppress(OSError):  # what lies there is the container's by now
            os.unlink(self._name(epoch), dir_fd=self._folder)

    def abort(self) -> None:
        """End the waiting for a reader, and all writing. Any thread may call it."""
        with self._lock:
            self.is_over.set()
            if self._awaited is not None and self._stand_in is None:
                self._stand_in = os.open(self._awaited, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the folder, once no thread waits in `open`."""
        os.close(self._folder)
        if self._stand_in is not None:
            os.close(self._stand_in)

    @contextlib.contextmanager
    def _found(self, name: str) -> Iterator[str]:
        """Hold a pipe, whatever becomes of its name, and give a path to it. Raises StorageError where it is none."""
        try:
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError as error:
            raise _spoilt(name) from error
        try:
            if not stat.S_ISFIFO(os.fstat(handle).st_mode):
                raise _spoilt(name)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)

    def _name(self, epoch: int) -> str:
        return f"{self._channel}_{epoch}"


class PipeWriter:
    """The writing end of a pipe that has a reader. Its calls raise ReaderLeft and Aborted."""

    def __init__(self, descriptor: int, is_over: threading.Event) -> None:
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # it then holds less
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._descriptor = descriptor
        self._is_over = is_over
        self._gathered = bytearray()
        self._poller = select.poll()
        self._poller.register(descriptor, select.POLLOUT)
        self.written_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it, as the reader makes room. Small pieces may wait for the next call, or for `flush`."""
        if len(data) < SMALL_BYTES:
            self._gathered += data
            if len(self._gathered) >= GATHERED_BYTES:
                self.flush()
            return
        self.flush()
        self._write(data)

    def write_pieces(self, pieces: Sequence[memoryview]) -> None:
        """Write all of them, one after the other, in few calls."""
        self.flush()
        left = list(pieces)
        while left:
            count = self._once_there_is_room(partial(os.writev, self._descriptor, left[:MOST_PIECES_COUNT]))
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]

    def splice(self, descriptor: int, size_bytes: int) -> None:
        """Hand over a file without copying it, or by copying where its filesystem knows no other way."""
        self.flush()
        done = 0
        while done < size_bytes:
            try:
                count = self._splice(descriptor, done, size_bytes - done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                data = os.pread(descriptor, min(PIPE_BYTES, size_bytes - done), done)
                self._write(data)
                count = len(data)
            if not count:
                return  # the file has become shorter, as its check will tell
            done += count

    def flush(self) -> None:
        """Write what small pieces have gathered."""
        if self._gathered:
            data, self._gathered = self._gathered, bytearray()
            self._write(data)

    def unread_bytes(self) -> int:
        """How much of what was written the reader has not taken yet."""
        found = fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", found)[0])

    def drain(self) -> None:
        """Wait until the reader has taken everything."""
        self.flush()
        while self.unread_bytes():
            if any(event & select.POLLERR for _, event in self._poller.poll(0)):
                raise ReaderLeft
            if self._is_over.wait(DRAIN_LOOK_S):
                raise Aborted

    def close(self) -> None:
        """End the pass: the reader finds the end of the data."""
        os.close(self._descriptor)

    def _splice(self, descriptor: int, start: int, size_bytes: int) -> int:
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        return self._once_there_is_room(
            partial(os.splice, descriptor, self._descriptor, size_bytes, offset_src=start, flags=flags)
        )

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                with view[done:] as rest:
                    done += self._once_there_is_room(partial(os.write, self._descriptor, rest))

    def _once_there_is_room(self, write: Callable[[], int]) -> int:
        """Carry out a call that writes; returns how many bytes it has written."""
        while True:
            try:
                count = write()
            except BlockingIOError:
                self._wait_for_room()
                continue
            except BrokenPipeError as error:
                raise ReaderLeft from error
            self.written_bytes += count
            return count

    def _wait_for_room(self) -> None:
        while not self._poller.poll(LOOK_MS):
            if self._is_over.is_set():
                raise Aborted


def _spoilt(name: str) -> StorageError:
    return StorageError(
        f"the pipe {name} in /opt/ml/input/data was removed or replaced inside the container: leave it to raymaker, "
        "which takes it away once it was read"
    )
