"""Objects by URI: listed, read, and written whole or not at all, on local folders, S3 and any other pyarrow filesystem.

Knows nothing of archives or channels. Its errors name the URI, the cause and the remedy. The places where objects
lie are in `backends.py` and `s3_files.py`; here is what they share: URIs, and patience with a store that is away.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import quote, unquote_to_bytes, urlsplit

from raymaker.actors.backends import CHUNK_BYTES, SILENCE_S, ArrowFiles, Files, LocalFiles, whole_file
from raymaker.actors.errors import ObjectChanged, ObjectNotFound, StorageError
from raymaker.actors.ranges import Facts, Part
from raymaker.actors.s3_files import S3Files
from raymaker.actors.store_errors import STORE_ERRORS, changed, explain, is_transient

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
FIRST_PIECE_BYTES = 8 * 1024
"""What of a range is handed on at once, so that a reader need not wait for more: less than a store sends at first."""
PIECE_BYTES = 2 * 1024 * 1024
"""How long a piece gets. Each is as long as all before it: one call of the kernel's for much at once keeps a core from
those who wait for the first bytes."""


@dataclass(frozen=True)
class StoreConfig:
    """How to reach `s3://`. Where nothing is set it is AWS itself, with AWS's own chain of credentials.

    `retry_s` is how long one operation bears with a store that is away or overloaded, `silence_s` how long it waits for
    the next byte of an answer before it asks anew.
    """

    s3_endpoint_url: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = field(default=None, repr=False)
    region: str | None = None
    retry_s: float = 60.0
    silence_s: float = SILENCE_S


@dataclass(frozen=True)
class ObjectInfo:
    """One object found below a prefix. `relative_name` is its name without the prefix, as a channel shows it."""

    uri: str
    relative_name: str
    size_bytes: int
    modified_at: float = 0.0
    """When it was last written, in epoch seconds; 0 where that is not known."""


class PinnedObject:
    """An object that is to stay as it was when its first byte was read. Threads may share it.

    `size_bytes` is how large it was found to be.
    """

    __slots__ = ("size_bytes", "uri", "version")  # there may be millions of them
    _agreeing = threading.Lock()

    def __init__(self, uri: str, size_bytes: int) -> None:
        self.uri = uri
        self.size_bytes = size_bytes
        self.version: str | None = None

    def agree(self, version: str, size_bytes: int) -> None:
        """Take the version where none was seen yet. Raises ObjectChanged where it is another, or another size."""
        with self._agreeing:
            self.version = self.version or version
        if (version, size_bytes) != (self.version, self.size_bytes):
            raise ObjectChanged(self.uri)


class ObjectStore:
    """Objects by URI (`file:///…`, a plain absolute path, `s3://bucket/key`, `gs://…`). Threads may share it.

    Every call raises StorageError, or ObjectNotFound where nothing lies at the URI.
    """

    def __init__(
        self,
        config: StoreConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config or StoreConfig()
        self._clock = clock
        self._sleep = sleep
        self._s3: dict[str, S3Files] = {}

    def list_objects(self, uri: str) -> list[ObjectInfo]:
        """List what lies at `uri`, sorted: a single object, a folder's files, or on S3 all keys with that prefix.

        Empty "directory" objects are left out. Raises ObjectNotFound where nothing is left.
        """
        files, path = self._locate(uri)
        found = self._patiently("list", uri, lambda: files.find(path))
        if not found:
            raise ObjectNotFound(f"no object lies at {uri}: check the URI, or put the data there first")
        objects = [ObjectInfo(files.uri(key), relative_name(path, key), size, at) for key, size, at in found]
        return sorted(objects, key=lambda item: item.relative_name)

    def exists(self, uri: str) -> bool:
        """Tell whether `uri` is an object itself, not only the beginning of the names of others."""
        files, path = self._locate(uri)
        return self._patiently("look for", uri, lambda: files.size(path)) is not None

    def size(self, uri: str) -> int:
        """The size of an object in bytes. Raises ObjectNotFound."""
        files, path = self._locate(uri)
        size = self._patiently("look for", uri, lambda: files.size(path))
        if size is None:
            raise ObjectNotFound(f"no object lies at {uri}: check the URI, or put the object there first")
        return size

    def look(self, uri: str) -> Facts:
        """Ask what the store tells of an object, with the rights that reading it takes. Raises ObjectNotFound."""
        files, path = self._locate(uri)
        return self._patiently("read", uri, lambda: files.look(path))

    def open_read(self, uri: str) -> io.BufferedReader:
        """Open an object as a stream that can seek, and goes on where it was when a transfer is cut."""
        return io.BufferedReader(_ResumingReader(self, uri), CHUNK_BYTES)

    def read_bytes(self, uri: str, limit_bytes: int) -> bytes:
        """Read a small object. Raises StorageError where it is larger than `limit_bytes`."""
        with self.open_read(uri) as source:
            content = source.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise StorageError(f"{uri} is larger than {limit_bytes} bytes: is it the object that was meant?")
        return content

    def local_path(self, uri: str) -> str | None:
        """The path of an object that is a file of this machine, None for what lies elsewhere. Raises StorageError."""
        files, path = self._locate(uri)
        return path if isinstance(files, LocalFiles) else None

    def lasting_name(self, uri: str) -> str | None:
        """What names an object among those of all stores, where its version surely tells its content; else None."""
        files, path = self._locate(uri)
        return f"{self._config.s3_endpoint_url or 'aws'} {path}" if isinstance(files, S3Files) else None

    def fill(
        self,
        item: PinnedObject,
        start: int,
        view: memoryview,
        on_bytes: Callable[[int], None],
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Read the bytes of an object from `start` on, until `view` is full; `on_bytes` hears how full it is.

        Goes on where it was when a transfer is cut or comes to a halt, for `retry_s` after the last byte; gives up once
        nobody wants the bytes. All bytes are of the version that `item` has seen first. Raises ObjectChanged.
        """
        files, path = self._locate(item.uri)
        filled = 0

        def go_on() -> int:
            done = filled
            try:
                part = files.open_part(path, start + done, start + len(view), item.version)
                with contextlib.closing(part):
                    item.agree(part.version, part.size_bytes)
                    while done < len(view) and not is_over():
                        done += _some(part, view[done : done + min(max(done, FIRST_PIECE_BYTES), PIECE_BYTES)])
                        on_bytes(done)
            except STORE_ERRORS as error:
                if done == filled or not is_transient(error):
                    raise
            except ObjectChanged as error:
                raise changed(item.uri) from error
            return done

        while filled < len(view) and not is_over():
            filled = self._patiently("read", item.uri, go_on)

    def download(self, uri: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Copy an object to `path`, whole or not at all; `on_bytes` hears of every piece that has come."""
        try:
            with self.open_read(uri) as source, whole_file(path) as target:
                while piece := source.read(CHUNK_BYTES):
                    target.write(piece)
                    if on_bytes is not None:
                        on_bytes(len(piece))
        except OSError as error:
            raise explain(error, f"download {uri} to", str(path)) from error

    def upload(self, path: Path, uri: str, before: Callable[[], None] = lambda: None) -> None:
        """Copy a file to `uri`, whole or not at all: a reader sees the object that was there, or all of the new one.

        `before` is called ahead of each try, and may raise where the object must not be written any more.
        """
        files, target = self._locate(uri)

        def put() -> None:
            before()
            files.put(path, target)

        self._patiently("write", uri, put)

    def write_bytes(self, uri: str, content: bytes, before: Callable[[], None] = lambda: None) -> None:
        """Write a small object, as `upload` does."""
        try:
            with tempfile.NamedTemporaryFile(prefix="raymaker-") as source:
                source.write(content)
                source.flush()
                self.upload(Path(source.name), uri, before)
        except OSError as error:
            raise explain(error, "write", uri) from error

    def copy(self, source_uri: str, target_uri: str, before: Callable[[], None] = lambda: None) -> None:
        """Copy an object to another place of the same store, whole or not at all, without fetching it."""
        files, source = self._locate(source_uri)
        _, target = self._locate(target_uri)

        def copy() -> None:
            before()
            files.copy(source, target)

        self._patiently(f"copy {source_uri} to", target_uri, copy)

    def delete_prefix(self, uri: str) -> None:
        """Remove the object or folder at `uri`; nothing there is no error."""
        files, path = self._locate(uri)
        self._patiently("delete", uri, lambda: files.delete(path))

    def check_writable(self, uri: str) -> None:
        """Try whether objects can be written below `uri`, and leave nothing behind. Raises StorageError."""
        files, path = self._locate(uri)
        self._patiently("write below", uri, lambda: files.check_writable(path))

    def _locate(self, uri: str) -> tuple[Files, str]:
        """Find the backend of a URI, and the path in it."""
        if uri.startswith("/"):
            return LocalFiles(), uri
        scheme, _, rest = uri.partition("://")
        if scheme == "file":
            parts = urlsplit(uri)
            if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
                raise StorageError(f"{uri} names no file of this machine: write it as file:///folder/name")
            return LocalFiles(), os.fsdecode(unquote_to_bytes(rest.removeprefix("localhost")))
        bucket = rest.partition("/")[0]
        if scheme == "s3" and bucket:
            return self._s3_files(bucket), rest
        if rest and scheme not in {"s3", "http", "https"}:
            return self._patiently("open", uri, lambda: ArrowFiles.from_uri(uri, self._config.retry_s))
        raise StorageError(f"{uri} is no URI of an object: write s3://bucket/key or file:///folder/name")

    def _s3_files(self, bucket: str) -> S3Files:
        if bucket not in self._s3:
            config = self._config
            self._s3[bucket] = self._patiently(
                "open",
                f"s3://{bucket}",
                lambda: S3Files(
                    bucket,
                    config.s3_endpoint_url,
                    config.s3_access_key_id,
                    config.s3_secret_access_key,
                    config.region,
                    silence_s=config.silence_s,
                ),
            )
        return self._s3[bucket]

    def _patiently(self, verb: str, uri: str, operation: Callable[[], T]) -> T:
        """Run `operation`, again and again for `retry_s` while the store is away; what it raises is a StorageError."""
        deadline = self._clock() + self._config.retry_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return operation()
            except STORE_ERRORS as error:
                if not is_transient(error) or self._clock() + pause_s > deadline:
                    raise explain(error, verb, uri) from error
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def relative_name(prefix: str, key: str) -> str:
    """Name a key as a channel shows it: without the prefix, or where that ends within a name, without its folders.

    `data/train` gives `a.csv` for `data/train/a.csv`, and `train-2.csv` for `data/train-2.csv`.
    """
    folder = prefix if prefix.endswith("/") else f"{prefix}/"
    if key.startswith(folder):
        return key[len(folder) :]
    return key[prefix.rfind("/") + 1 :]


def child_uri(uri: str, name: str) -> str:
    """The URI of an object called `name` below `uri`."""
    return f"{uri.rstrip('/')}/{quote(name) if uri.startswith('file:') else name}"


def _some(part: Part, view: memoryview) -> int:
    count = part.readinto(view)
    if not count:
        raise ObjectChanged("it grew shorter")
    return count


class _ResumingReader(io.RawIOBase):
    """An object as raw bytes, fetched by range, so that a cut transfer costs the piece that was under way."""

    def __init__(self, store: ObjectStore, uri: str) -> None:
        self._store = store
        self._uri = uri
        self._position = 0
        self._source: BinaryIO | None = None
        self._files, self._path = store._locate(uri)  # noqa: SLF001 - the other half of this module
        self._size = store.size(uri)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if self._source is not None:
            self._source.seek(self._position)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        wanted = max(0, min(len(view), self._size - self._position))
        data = self._patiently(lambda: self._read(wanted)) if wanted else b""
        if len(data) < wanted:
            raise StorageError(f"{self._uri} grew shorter while it was read: is something else writing to it?")
        view[:wanted] = data
        self._position += wanted
        return wanted

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, count: int) -> bytes:
        try:
            if self._source is None:
                self._source = self._files.open(self._path)
                self._source.seek(self._position)
            return self._source.read(count)
        except STORE_ERRORS:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._source is not None:
            with contextlib.suppress(OSError):
                self._source.close()
            self._source = None

    def _patiently(self, operation: Callable[[], T]) -> T:
        return self._store._patiently("read", self._uri, operation)  # noqa: SLF001 - the other half of this module
