"""Objects as files that can seek, of one version from the first byte that is read to the last."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from raymaker.actors.backends import CHUNK_BYTES
from raymaker.actors.storage import ObjectStore, PinnedObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def open_pinned(store: ObjectStore, item: PinnedObject) -> io.BufferedReader:
    """Open an object as a stream that can seek. Its reads raise StorageError, ObjectChanged."""
    return io.BufferedReader(PinnedFile(store, item), CHUNK_BYTES)


class PinnedFile(io.RawIOBase):
    """An object as a file that can seek, all of one version."""

    def __init__(self, store: ObjectStore, item: PinnedObject) -> None:
        self._store = store
        self._item = item
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Choose where the next read begins."""
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._item.size_bytes}
        self._position = offset + starts[whence]
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read as much as there is room for. Raises StorageError."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._item.size_bytes - self._position))
        if count:
            self._store.fill(self._item, self._position, view[:count], lambda _: None)
        self._position += count
        return count
