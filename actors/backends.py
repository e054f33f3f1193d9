"""Where objects lie: this machine's folders, and whatever else pyarrow reaches (S3 is in `s3_files.py`).

Each place has the same few verbs, on paths without a scheme. Nothing here retries or explains: `storage.py` does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Protocol, cast
from urllib.parse import urlsplit

from pyarrow import fs

from raymaker.actors.ranges import ArrowPart, Facts, FilePart, Part, file_version

CHUNK_BYTES = 8 * 1024 * 1024
UPLOAD_PART_BYTES = 32 * 1024 * 1024
SILENCE_S = 30.0
"""How long S3 may be silent; the SDK's own 3 s are less than it takes to put a large object together."""

Found = list[tuple[str, int, float]]
"""Objects: where they lie, how many bytes they have, and when they were last written (epoch seconds)."""


class Files(Protocol):
    """One place of objects. Raises OSError or ValueError, as Python and pyarrow do."""

    def uri(self, path: str) -> str:
        """The URI of a path."""

    def find(self, path: str) -> Found:
        """The object at `path`, or those below it."""

    def size(self, path: str) -> int | None:
        """The size of the object at `path`, None where there is none."""

    def look(self, path: str) -> Facts:
        """Tell of an object that is there, asking with the rights that reading it needs."""

    def open(self, path: str) -> BinaryIO:
        """Open an object for reading; the stream can seek."""

    def open_part(self, path: str, start: int, stop: int, version: str | None) -> Part:
        """Open the bytes from `start` to before `stop`; a place may refuse those of another version than `version`."""

    def put(self, source: Path, path: str) -> None:
        """Write a file as an object, whole or not at all."""

    def copy(self, source: str, target: str) -> None:
        """Copy an object, whole or not at all."""

    def delete(self, path: str) -> None:
        """Remove an object, or all below a folder."""

    def check_writable(self, path: str) -> None:
        """Write something below `path` and remove it again."""


class LocalFiles:
    """Folders of this machine."""

    def uri(self, path: str) -> str:
        """`file:///…`, with odd characters escaped."""
        return Path(path).as_uri()

    def find(self, path: str) -> Found:
        """The file, or all files below the folder; pipes, sockets and devices are not files."""
        size = self.size(path)
        if size is not None:
            return [(path, size, Path(path).stat().st_mtime)]
        return list(_walk(path.rstrip("/") or "/", frozenset()))

    def size(self, path: str) -> int | None:
        """None for folders, and for what is no ordinary file."""
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def look(self, path: str) -> Facts:
        """Tell of the file."""
        status = Path(path).stat()
        return Facts(file_version(status), status.st_size, status.st_mtime)

    def open(self, path: str) -> BinaryIO:
        """Open the file."""
        return Path(path).open("rb")

    def open_part(self, path: str, start: int, stop: int, version: str | None) -> FilePart:  # noqa: ARG002
        """Open the file; whoever reads stops at `stop`."""
        return FilePart(path, start)

    def put(self, source: Path, path: str) -> None:
        """Write beside the target, then rename: also after a power cut it is whole or absent."""
        with source.open("rb") as reader, whole_file(Path(path), durable=True) as writer:
            shutil.copyfileobj(reader, writer, CHUNK_BYTES)

    def copy(self, source: str, target: str) -> None:
        """Give the file a second name where the filesystem can, and copy its content where it cannot."""
        folder = Path(target).parent
        folder.mkdir(parents=True, exist_ok=True)
        second = folder / f".raymaker-{uuid.uuid4().hex}.part"
        try:
            second.hardlink_to(source)
            second.replace(target)
            _fsync_folder(folder)
        except FileNotFoundError:
            raise
        except OSError:
            self.put(Path(source), target)
        finally:
            second.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        target = Path(path)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def check_writable(self, path: str) -> None:
        """Write a file without a name into the folder, or where that is missing into the one that it would be in.

        No folder is made for it: other machines may be trying the same one.
        """
        folder = next(place for place in (Path(path), *Path(path).parents) if os.path.lexists(place))
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"raymaker")
            trial.flush()


def _found(entry: fs.FileInfo) -> tuple[str, int, float]:
    return entry.path, entry.size, (entry.mtime_ns or 0) / 1e9


class ArrowFiles:
    """A filesystem of pyarrow whose folders are made up from the names of objects."""

    def __init__(self, scheme: str, filesystem: fs.FileSystem) -> None:
        self._scheme = scheme
        self._fs = filesystem

    @staticmethod
    def from_uri(uri: str, retry_s: float) -> tuple[ArrowFiles, str]:
        """Let pyarrow find the filesystem of a URI, and the path in it."""
        if uri.startswith("gs://"):  # by hand: its own patience is 15 minutes
            filesystem = fs.GcsFileSystem(retry_time_limit=timedelta(seconds=max(retry_s, 1.0)))
            return ArrowFiles("gs", filesystem), uri.removeprefix("gs://")
        filesystem, path = fs.FileSystem.from_uri(uri)
        return ArrowFiles(urlsplit(uri).scheme, filesystem), path

    def uri(self, path: str) -> str:
        """The scheme before the path; keys are not escaped."""
        return f"{self._scheme}://{path}"

    def find(self, path: str) -> Found:
        """The object of that key, or every object whose key begins with it."""
        parent, _, stem = path.rpartition("/")
        if not parent or not stem:
            return self._below(path.rstrip("/"))
        size = self.size(path)
        if size is not None:
            return [_found(self._fs.get_file_info(path))]
        found: Found = []
        for entry in self._fs.get_file_info(fs.FileSelector(parent, recursive=False, allow_not_found=True)):
            if entry.path[len(parent) + 1 :].startswith(stem):
                found += [_found(entry)] if entry.is_file else self._below(entry.path)
        return found

    def size(self, path: str) -> int | None:
        """None for folders, and for the empty objects that stand for them."""
        info = self._fs.get_file_info(path.rstrip("/"))
        return cast("int", info.size) if info.is_file and not path.endswith("/") else None

    def look(self, path: str) -> Facts:
        """Tell of the object, as its parts do."""
        info = self._fs.get_file_info(path)
        if not info.is_file:
            raise FileNotFoundError(path)
        return Facts(str(info.mtime_ns), info.size, (info.mtime_ns or 0) / 1e9)

    def open(self, path: str) -> BinaryIO:
        """Open the object; each read fetches a range."""
        return cast("BinaryIO", self._fs.open_input_file(path))

    def open_part(self, path: str, start: int, stop: int, version: str | None) -> Part:  # noqa: ARG002
        """Open the object at a place in it."""
        return ArrowPart(self._fs, path, start, stop)

    def put(self, source: Path, path: str) -> None:
        """Upload in parts; the object appears when the last one is there."""
        # From a finished file: an exception in the block would still publish what was written. With None as its
        # compression: by default, pyarrow packs objects once more whose names end in .gz.
        with source.open("rb") as reader, self._fs.open_output_stream(path, None) as writer:
            shutil.copyfileobj(reader, writer, UPLOAD_PART_BYTES)

    def copy(self, source: str, target: str) -> None:
        """Copy the object within the filesystem."""
        self._fs.copy_file(source, target)

    def delete(self, path: str) -> None:
        """Remove the object, and all below it as a folder."""
        for key, *_ in self._below(path.rstrip("/")):
            self._fs.delete_file(key)
        if self.size(path) is not None:
            self._fs.delete_file(path)

    def check_writable(self, path: str) -> None:
        """Write an empty object and remove it."""
        trial = f"{path.rstrip('/')}/.raymaker-write-check-{uuid.uuid4().hex}"
        with tempfile.NamedTemporaryFile() as empty:
            self.put(Path(empty.name), trial)
        self.delete(trial)

    def _below(self, folder: str) -> Found:
        entries = self._fs.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
        return [_found(entry) for entry in entries if entry.is_file]


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when the block ends well, and never in part.

    A durable one is there after a power cut too. Until then it lies beside `path` under a name that no object has.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".raymaker-{uuid.uuid4().hex}.part"
    try:
        with part.open("xb") as writer:
            yield writer
            if durable:
                writer.flush()
                os.fsync(writer.fileno())
        part.replace(path)
        if durable:
            _fsync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _walk(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, int, float]]:
    """Yield the regular files below a folder as `Found` has them; links are followed, but not round in circles."""
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path, above | {here})
            elif entry.is_file():
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime


def _fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
