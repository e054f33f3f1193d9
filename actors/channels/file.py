"""File mode: every object of a channel copied into a folder before training starts.

The container gets copies, so that it can never change the source. Other modes and sharding are not here.
"""

from __future__ import annotations

import gzip
import json
import shutil
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raymaker.actors.backends import whole_file
from raymaker.actors.errors import ArchiveError, ObjectNotFound, StorageError, UnsupportedError
from raymaker.actors.extraction import safe_path
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectInfo, ObjectStore, child_uri
from raymaker.actors.store_errors import explain

DOWNLOAD_THREADS = 8
MANIFEST_LIMIT_BYTES = 64 * 1024 * 1024
MIB = 1024 * 1024

SUPPORTED = {
    "InputMode": ("input_mode", ("File",)),
    "S3DataType": ("data_type", ("S3Prefix", "ManifestFile")),
    "S3DataDistributionType": ("distribution", ("FullyReplicated", "ShardedByS3Key")),
    "CompressionType": ("compression", ("None", "Gzip")),
    "RecordWrapperType": ("record_wrapper", ("None",)),
}
"""What a channel may ask for, by the request's field. On a single machine both distributions mean all objects."""


def fetch_channel(
    store: ObjectStore,
    channel: ChannelSpec,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy a channel's objects to `folder`; `on_progress` hears the bytes that have come and those in all.

    With Gzip compression objects are unpacked, and lose their `.gz`. Raises UnsupportedError, ObjectNotFound where
    there is nothing, StorageError; each names the channel.
    """
    check_channel(channel)
    try:
        objects = _objects(store, channel)
        targets = _targets(channel, objects)
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_all(
            store,
            [(item, folder / target) for item, target in zip(objects, targets, strict=True)],
            channel,
            on_progress,
        )
    except ObjectNotFound as error:
        raise ObjectNotFound(f"channel {channel.name}: {error}") from error
    except (StorageError, ArchiveError) as error:
        raise StorageError(f"channel {channel.name}: {error}") from error
    except OSError as error:
        raise StorageError(f"channel {channel.name}: {explain(error, 'write to', str(folder))}") from error


def check_channel(channel: ChannelSpec) -> None:
    """Raise UnsupportedError, naming the field, where a channel asks for what File mode cannot give."""
    for field, (attribute, known) in SUPPORTED.items():
        value = getattr(channel, attribute)
        if value not in known:
            raise UnsupportedError(
                f"channel {channel.name}: {field} {value} is not supported; use {' or '.join(known)}"
            )


def parse_manifest(content: bytes, uri: str) -> tuple[str, list[str]]:
    """Read `[{"prefix": "s3://bucket/folder/"}, "name", …]`: the prefix, the names below it. Raises StorageError."""
    try:
        first, *names = json.loads(content)
        prefix = first["prefix"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StorageError(
            f'{uri} is no manifest: it must be JSON like [{{"prefix": "s3://…/"}}, "name", …]'
        ) from error
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None or not isinstance(prefix, str):
        raise StorageError(f"{uri} is no manifest: {wrong or prefix!r} is not a string")
    if not names:
        raise ObjectNotFound(f"the manifest {uri} names no objects: add their names behind the prefix")
    return prefix, names


def _objects(store: ObjectStore, channel: ChannelSpec) -> list[ObjectInfo]:
    if channel.data_type == "S3Prefix":
        return store.list_objects(channel.uri)
    prefix, names = parse_manifest(store.read_bytes(channel.uri, MANIFEST_LIMIT_BYTES), channel.uri)
    with ThreadPoolExecutor(DOWNLOAD_THREADS) as threads:
        return list(threads.map(lambda name: _named_object(store, prefix, name), names))


def _named_object(store: ObjectStore, prefix: str, name: str) -> ObjectInfo:
    uri = child_uri(prefix, name) if prefix.endswith("/") else prefix + name
    return ObjectInfo(uri, name, store.size(uri))


def _targets(channel: ChannelSpec, objects: list[ObjectInfo]) -> list[Path]:
    """Where each object goes, below the channel's folder. Raises StorageError where two go to the same place."""
    taken: dict[Path, str] = {}
    for item in objects:
        name = item.relative_name.removesuffix(".gz") if channel.compression == "Gzip" else item.relative_name
        target = Path(safe_path(name, item.uri))
        if target == Path() or target in taken:
            raise StorageError(f"{item.uri} and {taken.get(target)} would have the same name, {name!r}; rename one")
        taken[target] = item.uri
    return list(taken)


def _fetch_all(
    store: ObjectStore,
    work: list[tuple[ObjectInfo, Path]],
    channel: ChannelSpec,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    progress = _Progress(sum(item.size_bytes for item, _ in work), on_progress)
    fetch = _fetch_gunzipped if channel.compression == "Gzip" else _fetch_one
    threads = ThreadPoolExecutor(DOWNLOAD_THREADS, thread_name_prefix=f"channel-{channel.name}")
    try:
        for done in [threads.submit(fetch, store, item, target, progress) for item, target in work]:
            done.result()
    finally:
        threads.shutdown(cancel_futures=True)


def _fetch_one(store: ObjectStore, item: ObjectInfo, target: Path, progress: _Progress) -> None:
    store.download(item.uri, target, progress.add)


def _fetch_gunzipped(store: ObjectStore, item: ObjectInfo, target: Path, progress: _Progress) -> None:
    try:
        with store.open_read(item.uri) as packed, gzip.GzipFile(fileobj=packed) as source, whole_file(target) as copy:
            shutil.copyfileobj(source, copy, MIB)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StorageError(f"{item.uri} is no gzip file ({error}): compress it, or use CompressionType None") from error
    progress.add(item.size_bytes)


class _Progress:
    """Bytes that several threads bring."""

    def __init__(self, total_bytes: int, listener: Callable[[int, int], None] | None) -> None:
        self._total_bytes = total_bytes
        self._listener = listener or (lambda _done, _total: None)
        self._done_bytes = 0
        self._lock = threading.Lock()
        self._listener(0, total_bytes)

    def add(self, count: int) -> None:
        with self._lock:
            self._done_bytes += count
            self._listener(self._done_bytes, self._total_bytes)
