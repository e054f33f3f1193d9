"""File mode: a channel's objects, or one container's share of them, copied into a folder before training starts.

The container gets copies, so that it can never change the source. Who gets what is in `sharding.py`, how one object is
shared out by record in `records.py`. Other modes are not here.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from raymaker.actors.backends import whole_file
from raymaker.actors.channels.records import copy_records, open_gunzipped, open_records
from raymaker.actors.channels.sharding import Shard, deal_objects, divide_records
from raymaker.actors.errors import ArchiveError, ObjectNotFound, StorageError, UnsupportedError
from raymaker.actors.extraction import safe_path
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectInfo, ObjectStore, child_uri
from raymaker.actors.store_errors import explain

T = TypeVar("T")
Work = list[tuple[ObjectInfo, Path]]
"""Objects, each with the file that it becomes."""

DOWNLOAD_THREADS = 8
RECORD_THREADS = 4
"""Fewer, since each holds a block of records or a row group in memory."""
MANIFEST_LIMIT_BYTES = 64 * 1024 * 1024
MIB = 1024 * 1024

SUPPORTED = {
    "InputMode": ("input_mode", ("File",)),
    "S3DataType": ("data_type", ("S3Prefix", "ManifestFile")),
    "S3DataDistributionType": ("distribution", ("FullyReplicated", "ShardedByS3Key")),
    "CompressionType": ("compression", ("None", "Gzip")),
    "RecordWrapperType": ("record_wrapper", ("None",)),
    "ShardBy": ("shard_by", ("Object", "Record")),
}
"""What a channel may ask for, by the request's field."""


def fetch_channel(
    store: ObjectStore,
    channel: ChannelSpec,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    shard_index: int = 0,
    shard_count: int = 1,
) -> None:
    """Copy a channel's objects to `folder`; `on_progress` hears the bytes that have come and those in all.

    Of a channel that is ShardedByS3Key, only the share of container `shard_index` (from 0) of `shard_count` comes. With
    Gzip compression objects are unpacked, and lose their `.gz`. Raises UnsupportedError, also where there is less to
    share than containers; ObjectNotFound where there is nothing; StorageError. Each names the channel.
    """
    check_channel(channel)
    try:
        objects = find_objects(store, channel)
        targets = _targets(channel, objects)
        folder.mkdir(parents=True, exist_ok=True)
        work = [(item, folder / target) for item, target in zip(objects, targets, strict=True)]
        shard = Shard(shard_index, shard_count)
        if channel.distribution == "FullyReplicated" or shard_count == 1:
            _fetch_all(store, work, channel, on_progress)
        elif channel.shard_by == "Object":
            _fetch_all(store, _share(work, channel, shard), channel, on_progress)
        else:
            _fetch_records(store, work, channel, shard, on_progress)
    except UnsupportedError as error:
        raise UnsupportedError(f"channel {channel.name}: {error}") from error
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


def check_share(channel: ChannelSpec, count: int, shard: Shard) -> None:
    """Raise UnsupportedError where a channel has fewer objects, or lines of a manifest, than containers share it."""
    if count < shard.count:
        raise UnsupportedError(
            f"{shard.count} containers are more than there are objects at {channel.uri} ({count}), and "
            "ShardedByS3Key gives each container whole ones: use no more containers than that (InstanceCount times "
            "ContainersPerInstance), or ShardBy Record, with which containers share an object"
        )


def find_objects(store: ObjectStore, channel: ChannelSpec) -> list[ObjectInfo]:
    """Find the objects below a channel's prefix, or those that its manifest names. Raises StorageError."""
    if channel.data_type == "S3Prefix":
        return store.list_objects(channel.uri)
    prefix, names = parse_manifest(store.read_bytes(channel.uri, MANIFEST_LIMIT_BYTES), channel.uri)
    with ThreadPoolExecutor(DOWNLOAD_THREADS) as threads:
        return list(threads.map(lambda name: _named_object(store, prefix, name), names))


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


def _share(work: Work, channel: ChannelSpec, shard: Shard) -> Work:
    """Pick the objects that one container gets."""
    check_share(channel, len(work), shard)
    sizes = {item.relative_name: item.size_bytes for item, _ in work}
    mine = set(deal_objects(sizes, shard.count)[shard.index])
    return [(item, target) for item, target in work if item.relative_name in mine]


def _fetch_all(
    store: ObjectStore,
    work: Work,
    channel: ChannelSpec,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    progress = _Progress(sum(item.size_bytes for item, _ in work), on_progress)
    fetch = _fetch_gunzipped if channel.compression == "Gzip" else _fetch_one
    tasks = (partial(fetch, store, item, target, progress) for item, target in work)
    _run_all(tasks, DOWNLOAD_THREADS, channel)


def _fetch_one(store: ObjectStore, item: ObjectInfo, target: Path, progress: _Progress) -> None:
    store.download(item.uri, target, progress.add)


def _fetch_gunzipped(store: ObjectStore, item: ObjectInfo, target: Path, progress: _Progress) -> None:
    with open_gunzipped(store, item.uri) as source, whole_file(target) as copy:
        shutil.copyfileobj(source, copy, MIB)
    progress.add(item.size_bytes)


def _fetch_records(
    store: ObjectStore,
    work: Work,
    channel: ChannelSpec,
    shard: Shard,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Write the records of every object that one container gets; an object of which it gets none leaves no file."""
    work = [(item, target) for item, target in work if item.size_bytes]  # such as the _SUCCESS that Spark leaves
    files = [open_records(store, item, channel) for item, _ in work]
    progress = _Progress(sum(item.size_bytes for item, _ in work), on_progress)
    parts = [progress.of(item.size_bytes) for item, _ in work]
    counting = (partial(file.count, part.add) for file, part in zip(files, parts, strict=True))
    counts = _run_all(counting, RECORD_THREADS, channel)
    if sum(counts) < shard.count:
        raise UnsupportedError(
            f"{shard.count} containers are more than there are records at {channel.uri} ({sum(counts)}): use no more "
            "containers than that (InstanceCount times ContainersPerInstance), or FullyReplicated, which gives each of "
            "them all records"
        )

    def copy(index: int, wanted: range) -> None:
        if wanted:
            copy_records(files[index], wanted, work[index][1])
        parts[index].finish()

    shares = divide_records(counts, shard.count)[shard.index]
    _run_all((partial(copy, index, wanted) for index, wanted in enumerate(shares)), RECORD_THREADS, channel)


def _run_all(tasks: Iterable[Callable[[], T]], thread_count: int, channel: ChannelSpec) -> list[T]:
    """Do everything in threads, and nothing more after the first that fails."""
    threads = ThreadPoolExecutor(thread_count, thread_name_prefix=f"channel-{channel.name}")
    try:
        return [done.result() for done in [threads.submit(task) for task in tasks]]
    finally:
        threads.shutdown(cancel_futures=True)


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

    def of(self, size_bytes: int) -> _PartProgress:
        """Part of it: one object, of which some bytes may be read twice or never."""
        return _PartProgress(self, size_bytes)


class _PartProgress:
    """Bytes of one object, counted up to its size."""

    def __init__(self, whole: _Progress, size_bytes: int) -> None:
        self._whole = whole
        self._left_bytes = size_bytes

    def add(self, count: int) -> None:
        count = min(count, self._left_bytes)
        self._left_bytes -= count
        self._whole.add(count)

    def finish(self) -> None:
        self.add(self._left_bytes)
