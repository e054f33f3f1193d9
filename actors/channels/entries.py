"""What a streamed channel consists of, and in which order one container gets it in each pass.

An entry is what is shuffled and shared out: an object, or a line of an augmented manifest with all that it names. How
their bytes are read is for `ring.py`, how they are delivered for `stream.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raymaker.actors.channels.file import MANIFEST_LIMIT_BYTES, check_share, find_objects
from raymaker.actors.channels.sharding import Shard, deal_objects
from raymaker.actors.errors import StorageError
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectInfo, ObjectStore

REFERENCE = "-ref"
"""Attributes of augmented manifests whose names end so hold URIs of objects."""


@dataclass(frozen=True)
class Source:
    """An object to stream. `size_bytes` None: not known yet."""

    uri: str
    size_bytes: int | None = None


Record = Source | bytes
"""What is wrapped as one: an object, or bytes that a manifest holds."""


class Entries(Protocol):
    """The entries of a channel, in their own order."""

    sizes: Mapping[str, int]
    """A name for each, and its bytes as far as they are known, by which they are shared out."""
    are_files: bool
    """Whether all of them are known to be files of this machine."""

    def records(self, index: int) -> Sequence[Record]:
        """What one entry consists of. Raises StorageError."""


class Objects:
    """Entries that are objects."""

    def __init__(self, store: ObjectStore, found: Sequence[ObjectInfo]) -> None:
        self.are_files = all(store.local_path(item.uri) is not None for item in found[:1])  # they lie together
        self._sources = [Source(item.uri, item.size_bytes) for item in found]
        sizes: dict[str, int] = {}
        for index, item in enumerate(found):
            name = item.relative_name
            sizes[f"{name}\0{index}" if name in sizes else name] = item.size_bytes  # a manifest may repeat names
        self.sizes: Mapping[str, int] = sizes

    def records(self, index: int) -> Sequence[Record]:
        """The object."""
        return [self._sources[index]]


class Lines:
    """Entries that are lines of an augmented manifest, which is read and checked as a whole. Raises StorageError."""

    are_files = False

    def __init__(self, text: bytes, uri: str, attribute_names: Sequence[str]) -> None:
        self._uri = uri
        self._names = attribute_names
        self._lines = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
        self.sizes: Mapping[str, int] = {str(number): 1 for number, _ in self._lines}
        for index in range(len(self._lines)):
            self.records(index)

    def records(self, index: int) -> Sequence[Record]:
        """The values of the line's attributes, in the order of their names."""
        number, line = self._lines[index]
        where = f"line {number} of the augmented manifest {self._uri}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{where} is no JSON: write one object to a line ({error})") from error
        missing = [name for name in self._names if not isinstance(values, dict) or name not in values]
        if missing:
            raise StorageError(f"{where} has no attribute {missing[0]!r}: add it, or correct AttributeNames")
        return [_record(name, values[name], where) for name in self._names]


def find_entries(store: ObjectStore, channel: ChannelSpec) -> Entries:
    """Find what a channel consists of. Raises StorageError, ObjectNotFound where there is nothing."""
    if channel.data_type == "AugmentedManifestFile":
        return Lines(store.read_bytes(channel.uri, MANIFEST_LIMIT_BYTES), channel.uri, channel.attribute_names)
    return Objects(store, find_objects(store, channel))


class Passes:
    """The passes of one container over a channel. Raises UnsupportedError where there is less to share than containers.

    Without a shuffle seed each pass is alike, and a container's share that of File mode. With one, each is another
    order of all entries, the same for every container that gets them whole; shares are then dealt anew each time.
    """

    def __init__(self, entries: Entries, channel: ChannelSpec, shard: Shard) -> None:
        self._entries = entries
        self._seed = channel.shuffle_seed
        shared_by = channel.shard_by if channel.distribution == "ShardedByS3Key" else None
        self._shard = shard if shared_by == "Object" else Shard(0, 1)
        self.record_shard = shard if shared_by == "Record" else Shard(0, 1)
        """Which records of the pass are the container's."""
        self.are_files = entries.are_files
        check_share(channel, len(entries.sizes), self._shard)

    def records(self, epoch: int) -> Iterator[Record]:
        """What comes in pass `epoch`, from 0. Raises StorageError."""
        for index in self._order(epoch):
            yield from self._entries.records(index)

    def shuffling(self, epoch: int) -> random.Random | None:
        """What mixes the records of a pass within the objects, None where they stay as they are."""
        if self._seed is None:
            return None
        return random.Random(f"{self._seed}/{epoch}/{self.record_shard.index}")  # noqa: S311 - not for secrets

    def _order(self, epoch: int) -> Sequence[int]:
        sizes, shard = self._entries.sizes, self._shard
        indices = list(range(len(sizes)))
        if self._seed is not None:
            random.Random(f"{self._seed}/{epoch}").shuffle(indices)  # noqa: S311 - not for secrets
            return indices[shard.index :: shard.count]
        if shard.count == 1:
            return indices
        mine = set(deal_objects(sizes, shard.count)[shard.index])
        return [index for index, name in enumerate(sizes) if name in mine]


def _record(name: str, value: Any, where: str) -> Record:
    if not name.endswith(REFERENCE):
        return value.encode() if isinstance(value, str) else json.dumps(value).encode()
    if not isinstance(value, str):
        raise StorageError(f"{where}: the attribute {name!r} ends in {REFERENCE}, so it must be the URI of an object")
    return Source(value)
