"""Parts of objects as their places hand them out: each tells which version of its object the bytes are of.

Nothing here retries or explains: `storage.py` does.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pyarrow import fs

from raymaker.actors.errors import ObjectChanged

MD5_TAG = re.compile(r'"?([0-9a-f]{32})"?')
"""An ETag that looks like the MD5 of its object."""


@dataclass(frozen=True)
class Checksum:
    """A checksum of all of an object's bytes: `md5`, `sha1`, `sha256` or `crc32`, in hexadecimal digits."""

    algorithm: str
    value: str


@dataclass(frozen=True)
class Facts:
    """What a place tells of an object without giving it out."""

    version: str
    """As a part of it has it."""
    size_bytes: int
    modified_at: float
    """When it was last written, in epoch seconds."""
    checksum: Checksum | None = None
    """None where the place knows none that can be computed here."""


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
        return file_version(status), status.st_size


def file_version(status: os.stat_result) -> str:
    """The version of a file of this machine."""
    return f"{status.st_dev}-{status.st_ino}-{status.st_mtime_ns}"


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


def checksum_of_answer(answer: Mapping[str, Any]) -> Checksum | None:
    """The checksum of a whole object in what S3 tells of it: one that was stored with it, or an ETag that is its MD5.

    Those of uploads in parts are mostly not of the whole, and with keys of a key service an ETag is no MD5.
    """
    if answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        for algorithm in ("crc32", "sha256", "sha1"):
            value = str(answer.get(f"Checksum{algorithm.upper()}", ""))
            if value and "-" not in value:
                return Checksum(algorithm, base64.b64decode(value).hex())
    tag = MD5_TAG.fullmatch(answer["ETag"])
    is_plain = answer.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in answer
    return Checksum("md5", tag[1]) if tag is not None and is_plain else None
