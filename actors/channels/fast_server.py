"""The process that shows objects as files, fetched as they are read: `python -m raymaker.actors.channels.fast_server`.

It is told on its input what to show where, says on its output that it does and what cannot be read, a JSON object to a
line, and ends with its input: so it never outlives whoever started it, and neither does what it has mounted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import mfusepy

from raymaker.actors.channels.blocks import Blocks, Reader, ReadObject
from raymaker.actors.errors import ObjectChanged, WorkError
from raymaker.actors.mounting import unmount_below
from raymaker.actors.ranges import FilePart
from raymaker.actors.storage import ObjectStore, PinnedObject, StoreConfig
from raymaker.actors.store_errors import changed, explain

NANOSECONDS = 10**9
KEPT_S = 10**6
"""How long the kernel may remember what it was told: nothing changes here."""
_saying = threading.Lock()
FOLDER = {"st_mode": stat.S_IFDIR | 0o555, "st_nlink": 2}


def main() -> None:
    """Show what the first line of the input says, until the input ends."""
    told = json.loads(sys.stdin.readline())
    tree = Tree(ObjectStore(StoreConfig(**told["store"])), told["buffer_bytes"])
    for file in told["files"]:
        tree.add(**file)

    def end_with_input() -> None:
        sys.stdin.read()
        for folder in told["folders"]:
            unmount_below(Path(folder))
        os._exit(0)

    threading.Thread(target=end_with_input, daemon=True).start()
    # Root mounts without a helper, and the kernel keeps what it has read: versions are pinned.
    mfusepy.FUSE(
        tree,
        told["mount_point"],
        raw_fi=False,
        foreground=True,
        ro=True,
        allow_other=True,
        kernel_cache=True,
        attr_timeout=KEPT_S,
        entry_timeout=KEPT_S,
        negative_timeout=KEPT_S,
        fsname="raymaker",
        subtype="fastfile",
    )


def say(**words: Any) -> None:
    """Tell whoever started this process."""
    with _saying:
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()


class Tree(mfusepy.Operations):  # type: ignore[misc]
    """Folders and files, read-only."""

    use_ns = True

    def __init__(self, store: ObjectStore, buffer_bytes: int) -> None:
        self._store = store
        self._blocks = Blocks(store, buffer_bytes)
        self._folders: dict[str, dict[str, None]] = {"/": {}}
        self._files: dict[str, _File] = {}
        self._sources: dict[str, ReadObject] = {}
        self._open: dict[int, _Open] = {}
        self._last = 0
        self._lock = threading.Lock()

    def add(self, path: str, uri: str, size_bytes: int, modified_at: float) -> None:
        """Show an object at a path, absolute in this tree."""
        source = self._sources.setdefault(uri, ReadObject(PinnedObject(uri, size_bytes)))
        self._files[path] = _File(source, modified_at)
        name = PurePosixPath(path)
        for parent in name.parents:
            self._folders.setdefault(str(parent), {})[name.name] = None
            name = parent

    def init(self, path: str) -> None:  # noqa: ARG002 - libfuse's shape
        """Called once it is mounted."""
        say(ready=True)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Tell of a file or folder."""
        if (file := self._files.get(path)) is not None:
            at = int(file.modified_at * NANOSECONDS)
            size_bytes = file.source.item.size_bytes
            return {
                "st_mode": stat.S_IFREG | 0o444,
                "st_nlink": 1,
                "st_size": size_bytes,
                "st_blocks": -(-size_bytes // 512),
                "st_mtime": at,
                "st_ctime": at,
                "st_atime": at,
            }
        if path in self._folders:
            return FOLDER
        raise mfusepy.FuseOSError(errno.ENOENT)

    def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002
        """Name what is in a folder."""
        return [".", "..", *self._folders[path]]

    def open(self, path: str, flags: int) -> int:
        """Begin to read a file."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise mfusepy.FuseOSError(errno.EROFS)
        source = self._files[path].source
        with self._telling(source.item.uri):
            opened = _Open(source, self._store.local_path(source.item.uri))
        with self._lock:
            self._last += 1
            self._open[self._last] = opened
            source.readers_count += 1
            return self._last

    def read(self, path: str, size: int, offset: int, fh: int) -> Any:  # noqa: ARG002
        """Read of a file; where that cannot be, the reader gets EIO and whoever started this process the reason."""
        opened = self._open[fh]
        with self._telling(opened.source.item.uri):
            if opened.part is not None:
                return opened.read_file(opened.part, size, offset)
            piece = self._blocks.read(opened.reader, offset, size)
        return piece if isinstance(piece, bytes) else (ctypes.c_char * len(piece)).from_buffer(piece)

    def release(self, path: str, fh: int) -> int:  # noqa: ARG002
        """End reading a file."""
        with self._lock:
            opened = self._open.pop(fh)
            opened.source.readers_count -= 1
            is_last = not opened.source.readers_count
        opened.close()
        if is_last:
            self._blocks.drop(opened.source)
        return 0

    @contextlib.contextmanager
    def _telling(self, uri: str) -> Iterator[None]:
        try:
            yield
        except (WorkError, OSError) as error:
            if isinstance(error, OSError):
                error = explain(error, "read", uri)
            say(problem=str(error))
            raise mfusepy.FuseOSError(errno.EIO) from error


class _File:
    def __init__(self, source: ReadObject, modified_at: float) -> None:
        self.source = source
        self.modified_at = modified_at


class _Open:
    """A file that somebody has open; one of this machine is read straight."""

    def __init__(self, source: ReadObject, path: str | None) -> None:
        self.source = source
        self.reader = Reader(source)
        self.part = FilePart(path, 0) if path is not None else None
        if self.part is not None:
            with _explaining(source.item):
                source.item.agree(self.part.version, self.part.size_bytes)

    def read_file(self, part: FilePart, size: int, offset: int) -> bytes:
        content = os.pread(part.descriptor, size, offset)
        with _explaining(self.source.item):
            part.check()
        return content

    def close(self) -> None:
        if self.part is not None:
            self.part.close()


@contextlib.contextmanager
def _explaining(item: PinnedObject) -> Iterator[None]:
    try:
        yield
    except ObjectChanged as error:
        raise changed(item.uri) from error


if __name__ == "__main__":
    main()
