"""How a channel's objects come: from this machine's cache where they are there, else from their store, and into it.

What lies in the cache is only used once the store has said, to this job, that it has the very same version.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from raymaker.actors.backends import whole_file
from raymaker.actors.channels.cache import Entry, ObjectCache, Slot
from raymaker.actors.channels.progress import Listener, PartProgress, Progress
from raymaker.actors.channels.transfers import Transfers, copy_file, copy_object
from raymaker.actors.errors import ObjectChanged, StorageError
from raymaker.actors.pinned_file import open_pinned
from raymaker.actors.storage import ObjectInfo, ObjectStore, PinnedObject
from raymaker.actors.store_errors import changed, explain

FULL = {errno.ENOSPC, errno.EDQUOT}


class Fetcher:
    """Brings the objects of one channel. Threads may share it.

    With `links`, files are given as further names of those in the cache: whoever asks sees to it
    that they are never written to. `on_progress` hears of bytes wherever they come from.
    """

    def __init__(
        self, store: ObjectStore, cache: ObjectCache, on_progress: Listener | None = None, *, links: bool = False
    ) -> None:
        self._store = store
        self._cache = cache
        self._links = links
        self._transfers = Transfers(store)
        self._progress = Progress(on_progress)
        self._pins: dict[str, PinnedObject] = {}
        self._names: frozenset[str] = frozenset()
        self._room_bytes = 0
        self._counting = threading.Lock()
        self.cached_bytes = 0
        """How much was found in the cache."""

    def expect(self, items: Iterable[ObjectInfo]) -> None:
        """Hear which objects will be wanted: tells how much that is, and makes room for those that are new here."""
        wanted = list(items)
        self._progress.begin(sum(item.size_bytes for item in wanted))
        if self._cache.is_on:
            named = {name: item for item in wanted if (name := self._store.lasting_name(item.uri)) is not None}
            self._names = frozenset(named)
            self._make_room(sum(item.size_bytes for name, item in named.items() if not self._cache.knows(name)))

    def fetch(self, item: ObjectInfo, target: Path) -> None:
        """Have `target` be the object, whole or not at all. Raises StorageError; the others then give up too."""
        heard = self._progress.of(item.size_bytes)
        with self._failing_together():
            try:
                self._fetch(item, target, heard)
            except StorageError as error:
                if not (_is_full(error) and self._cache.make_room(2 * item.size_bytes)):
                    raise
                self._fetch(item, target, heard)
        heard.finish()

    @contextlib.contextmanager
    def open(self, item: ObjectInfo) -> Iterator[BinaryIO]:
        """Open the object, which is of one version however often it is opened. Raises StorageError, also later."""
        with self._entry(item, self._progress.of(0)) as entry:
            if entry is not None:
                with entry.path.open("rb") as file:
                    yield file
                return
        with open_pinned(self._store, self.pin(item)) as source:
            yield cast("BinaryIO", source)

    def pin(self, item: ObjectInfo) -> PinnedObject:
        """The object as it was first seen."""
        with self._counting:
            return self._pins.setdefault(item.uri, PinnedObject(item.uri, item.size_bytes))

    def progress_of(self, size_bytes: int) -> PartProgress:
        """What hears of an object that is read in a way of its own."""
        return self._progress.of(size_bytes)

    def _fetch(self, item: ObjectInfo, target: Path, heard: PartProgress) -> None:
        with self._entry(item, heard) as entry:
            if entry is not None:
                self._lay(entry, item, target)
                return
        try:
            with whole_file(target) as writer:
                part = Path(writer.name)
                if (path := self._store.local_path(item.uri)) is not None:
                    copy_object(self.pin(item), path, part, heard.add)
                else:
                    self._transfers.fetch(self.pin(item), part, heard.add)
        except OSError as error:
            raise explain(error, f"download {item.uri} to", str(target)) from error

    @contextlib.contextmanager
    def _entry(self, item: ObjectInfo, heard: PartProgress) -> Iterator[Entry | None]:
        """Find the object in the cache, or bring it there; None where it is not for the cache. Held while in use."""
        with contextlib.ExitStack() as held:
            entry = None
            name = self._store.lasting_name(item.uri) if self._cache.is_on and item.size_bytes else None
            if name is not None:
                slot = held.enter_context(self._cache.slot(name, heard.reach))
                entry = self._find_or_bring(slot, item, heard)
                if entry is not None:
                    slot.share()
                else:
                    held.close()
            yield entry

    def _find_or_bring(self, slot: Slot, item: ObjectInfo, heard: PartProgress) -> Entry | None:
        pin, facts = self.pin(item), None
        if slot.is_known():
            facts = self._store.look(item.uri)
            try:
                pin.agree(facts.version, facts.size_bytes)
            except ObjectChanged as error:
                raise changed(item.uri) from error
            if (entry := slot.find(facts.version, facts.size_bytes)) is not None:
                with self._counting:
                    self.cached_bytes += item.size_bytes
                return entry
            self._make_room(item.size_bytes)  # none was made for it, as it was known
        if not self._takes_room(item.size_bytes):
            return None
        try:
            checksum = self._transfers.fetch(pin, slot.part, heard.add, facts)
            return slot.publish(pin, item.modified_at, checksum)
        except OSError as error:
            raise explain(error, f"download {item.uri} to", str(slot.part)) from error
        finally:
            slot.part.unlink(missing_ok=True)

    def _make_room(self, size_bytes: int) -> None:
        room_bytes = self._cache.make_room(size_bytes, self._names) if size_bytes else 0
        with self._counting:
            self._room_bytes += room_bytes

    def _takes_room(self, size_bytes: int) -> bool:
        """Take some of the room that was made, once."""
        with self._counting:
            if self._room_bytes < size_bytes:
                return False
            self._room_bytes -= size_bytes
            return True

    def _lay(self, entry: Entry, item: ObjectInfo, target: Path) -> None:
        """Give a file of the cache to a job: under a second name, or as a copy."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not (self._links and _link(entry.path, target)):
                with entry.path.open("rb") as source, whole_file(target) as copy:
                    copy_file(source.fileno(), copy.fileno(), entry.size_bytes, lambda _: None)
        except OSError as error:
            raise explain(error, f"copy {item.uri} to", str(target)) from error

    @contextlib.contextmanager
    def _failing_together(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._transfers.give_up(error)
            raise


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the filesystem does not."""
    try:
        target.unlink(missing_ok=True)
        target.hardlink_to(source)
    except OSError:
        return False
    return True


def _is_full(error: StorageError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in FULL
