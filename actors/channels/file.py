"""File mode: a channel's objects, or one container's share of them, copied into a folder before training starts.

The container never gets the source itself, so that it cannot change it. Who gets what is in `sharding.py`, how one
object is shared out by record in `records.py`, how bytes come in `fetching.py`. Other modes are not here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from raymaker.actors.backends import whole_file
from raymaker.actors.channels.cache import ObjectCache
from raymaker.actors.channels.fetching import Fetcher
from raymaker.actors.channels.progress import Listener
from raymaker.actors.channels.records import copy_records, open_records, unpacked
from raymaker.actors.channels.sharding import Shard, deal_objects, divide_records
from raymaker.actors.errors import ArchiveError, ObjectNotFound, StorageError, UnsupportedError
from raymaker.actors.extraction import safe_path
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectInfo, ObjectStore, child_uri
from raymaker.actors.store_errors import explain

T = TypeVar("T")
Work = list[tuple[ObjectInfo, Path]]
"""Objects, each with the file that it becomes."""

DOWNLOAD_THREADS = 16
LOOKUP_THREADS = 8
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
    on_progress: Listener | None = None,
    *,
    shard_index: int = 0,
    shard_count: int = 1,
    cache: ObjectCache | None = None,
    links: bool = False,
) -> int:
    """Bring a channel's objects to `folder`; returns how many bytes of them were in the machine's cache.

    `on_progress` hears the bytes that have come and those in all. Of a channel that is ShardedByS3Key, only the share
    of container `shard_index` (from 0) of `shard_count` comes. With Gzip compression objects are unpacked, and lose
    their `.gz`. With `links`, files are those of the cache, and nobody may write to them. Raises UnsupportedError, also
    where there is less to share than containers; ObjectNotFound where there is nothing; StorageError. Each names the
    channel.
    """
    check_channel(channel)
    shard = Shard(shard_index, shard_count)
    by_record = channel.distribution == "ShardedByS3Key" and channel.shard_by == "Record" and shard_count > 1
    try:
        found = _find_all(store, channel) if by_record else find_work(store, channel, shard)
        folder.mkdir(parents=True, exist_ok=True)
        work = [(item, folder / target) for item, target in found]
        fetcher = Fetcher(store, cache or ObjectCache.off(), on_progress, links=links)
        if by_record:
            _fetch_records(store, fetcher, work, channel, shard)
        else:
            _fetch_all(fetcher, work, channel)
        return fetcher.cached_bytes
    except (UnsupportedError, StorageError) as error:
        raise type(error)(f"channel {channel.name}: {error}") from error
    except ArchiveError as error:
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


def find_work(store: ObjectStore, channel: ChannelSpec, shard: Shard) -> Work:
    """Find the objects that one container gets, each with its place below the channel's folder.

    Raises StorageError, and UnsupportedError where there are fewer than containers. Neither names the channel.
    """
    work = _find_all(store, channel)
    is_whole = channel.distribution == "FullyReplicated" or shard.count == 1
    return work if is_whole else _share(work, channel, shard)


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
    with ThreadPoolExecutor(LOOKUP_THREADS) as threads:
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


def _find_all(store: ObjectStore, channel: ChannelSpec) -> Work:
    objects = find_objects(store, channel)
    return list(zip(objects, _targets(channel, objects), strict=True))


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


def _fetch_all(fetcher: Fetcher, work: Work, channel: ChannelSpec) -> None:
    fetcher.expect(item for item, _ in work)
    fetch = _fetch_gunzipped if channel.compression == "Gzip" else Fetcher.fetch
    _run_all((partial(fetch, fetcher, item, target) for item, target in work), DOWNLOAD_THREADS, channel)


def _fetch_gunzipped(fetcher: Fetcher, item: ObjectInfo, target: Path) -> None:
    with unpacked(fetcher.open(item), item.uri) as source, whole_file(target) as copy:
        shutil.copyfileobj(source, copy, MIB)
    fetcher.progress_of(item.size_bytes).finish()


def _fetch_records(store: ObjectStore, fetcher: Fetcher, work: Work, channel: ChannelSpec, shard: Shard) -> None:
    """Write the records of every object that one container gets; an object of which it gets none leaves no file."""
    work = [(item, target) for item, target in work if item.size_bytes]  # such as the _SUCCESS that Spark leaves
    fetcher.expect(item for item, _ in work)
    files = [open_records(store, item, channel, partial(fetcher.open, item)) for item, _ in work]
    parts = [fetcher.progress_of(item.size_bytes) for item, _ in work]
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
