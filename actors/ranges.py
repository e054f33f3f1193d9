"""Parts of objects as their places hand them out: each tells which version of its object the bytes are of.

Nothing here retries or explains: `storage.py` does.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from pyarrow import fs

from raymaker.actors.errors import ObjectChanged


class Part(Protocol):
    """Bytes of one object from somewhere on, opened. Raises what Python, pyarrow and botocore raise."""

    version: str
    """What is another once the object's content is: an ETag, or a file's identity and time."""
    size_bytes: int
    """How large the whole object is."""

    def readinto(self, view: memoryview) -> int:
        """Fill some of `view`, and tell how much; 0 at the end of the part, or where the object ends before it."""

    def close(self) -> None:
        """Let go of it."""


class FilePart:
    """Part of a file of this machine."""

    def __init__(self, path: str, start: int) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.version, self.size_bytes = self._look()
        self._position = start

    def readinto(self, view: memoryview) -> int:
        """Raises ObjectChanged where the file is written to meanwhile."""
        count = os.preadv(self.descriptor, [view], self._position)
        self.check()
        self._position += count
        return count

    def check(self) -> None:
        """Raise ObjectChanged where the file was written to since it was opened."""
        if self._look() != (self.version, self.size_bytes):
            raise ObjectChanged("it was written to")

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def _look(self) -> tuple[str, int]:
        status = os.fstat(self.descriptor)
        return f"{status.st_dev}-{status.st_ino}-{status.st_mtime_ns}", status.st_size


class ArrowPart:
    """Part of an object of a filesystem of pyarrow, which cannot ask for a version: it looks before and after."""

    def __init__(self, filesystem: fs.FileSystem, path: str, start: int, stop: int) -> None:
        self._fs = filesystem
        self._path = path
        self._left_bytes = stop - start
        self.version, self.size_bytes = self._look()
        self._file = filesystem.open_input_file(path)
        self._file.seek(start)

    def readinto(self, view: memoryview) -> int:
        """Raises ObjectChanged with the last bytes where the object is another by then."""
        count = int(self._file.readinto(view[: self._left_bytes]))
        self._left_bytes -= count
        if not self._left_bytes and self._look() != (self.version, self.size_bytes):
            raise ObjectChanged("it was replaced")
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _look(self) -> tuple[str, int]:
        info = self._fs.get_file_info(self._path)
        if not info.is_file:
            raise FileNotFoundError(self._path)
        return str(info.mtime_ns), info.size


class S3Part:
    """Part of an object of S3: the body of one answer, and what its headers say."""

    def __init__(self, version: str, content_range: str, body: Any) -> None:
        self.version = version
        self.size_bytes = int(content_range.rpartition("/")[2])
        self._body = body

    def readinto(self, view: memoryview) -> int:
        """Read from the answer. Raises IncompleteReadError where it ends too early."""
        return int(self._body.readinto(view))

    def close(self) -> None:
        """Give the connection back, or close it where something is left to read."""
        self._body.close()
