"""Checkpoints brought back from the store to the folder: each one whole and verified, or not at all."""

from __future__ import annotations

import errno
import itertools
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from raymaker.actors.checkpoints.folder import RESTORING, checksum, open_to_all, remove_entry, replace_entry
from raymaker.actors.checkpoints.manifest import Files, Plan, StoredFile, Version
from raymaker.actors.errors import ObjectNotFound
from raymaker.actors.storage import ObjectStore

THREADS = 16
"""Small objects cost round trips, not bytes."""


@dataclass(frozen=True)
class RestoreReport:
    """What was restored, and what was left where it lies, each with the reason."""

    restored: tuple[str, ...]
    size_bytes: int
    left_out: Mapping[str, str]


class Restore:
    """Brings what lies at a location (`uri` gives the URI of a name there) to a folder of this machine."""

    def __init__(
        self, store: ObjectStore, uri: Callable[[str], str], folder: Path, progress: Callable[[int, int], None]
    ) -> None:
        self._store = store
        self._uri = uri
        self._folder = folder
        self._progress = progress
        self._lock = threading.Lock()
        self._done_bytes = self._total_bytes = 0

    def fetch(self, plan: Plan) -> tuple[dict[str, Files], dict[str, str]]:
        """Bring every entry that is whole in some version; return what was brought, and why the others were not.

        Raises StorageError where the store fails, OSError where this machine's disk does; nothing half-made stays.
        """
        made = self._folder / f"{RESTORING}{uuid.uuid4().hex}"
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="restore")
        try:
            self._remove_leftovers()
            return self._fetch_all(plan, made, threads)
        finally:
            threads.shutdown(cancel_futures=True)
            shutil.rmtree(made, ignore_errors=True)

    def _fetch_all(
        self, plan: Plan, made: Path, threads: ThreadPoolExecutor
    ) -> tuple[dict[str, Files], dict[str, str]]:
        """The first choice of all entries at once, then the second choice of those that turned out torn, and so on."""
        chosen: dict[str, Files] = {}
        torn: dict[str, str] = {}
        pending = dict(plan.versions)
        for number in itertools.count():
            if not pending:
                break
            self._total_bytes += sum(versions[0].size_bytes for versions in pending.values())
            place = made / str(number)
            begun = {name: self._begin(threads, place, versions[0]) for name, versions in pending.items()}
            for name, tasks in begun.items():
                try:
                    chosen[name] = {file: task.result() for file, task in tasks.items()}
                except _Unfit as error:
                    torn[name] = str(error)
                else:
                    open_to_all(place / name)
                    replace_entry(place / name, self._folder / name)
            pending = {name: versions[1:] for name, versions in pending.items() if name in torn and versions[1:]}
        return chosen, {name: reason for name, reason in torn.items() if name not in chosen}

    def _begin(self, threads: ThreadPoolExecutor, place: Path, version: Version) -> dict[str, Future[StoredFile]]:
        return {
            name: threads.submit(self._fetch_file, place / name, alternatives)
            for name, alternatives in version.files.items()
        }

    def _fetch_file(self, target: Path, alternatives: tuple[StoredFile, ...]) -> StoredFile:
        """Fetch a file from the first object that holds what was written down. Raises _Unfit where none does."""
        for at in dict.fromkeys(stored.at for stored in alternatives):
            size_bytes, crc32 = self._download(at, target)
            for stored in alternatives:
                if stored.at == at and stored.size_bytes == size_bytes and stored.crc32 in {None, crc32}:
                    return StoredFile(size_bytes, crc32, at, stored.inherited)
        raise _Unfit(f"{at} does not have the content that was written down about it")

    def _download(self, at: str, target: Path) -> tuple[int, int]:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._store.open_read(self._uri(at)) as source, target.open("wb") as copy:
                return checksum(source, lambda piece: self._take(copy.write(piece)))
        except ObjectNotFound:
            raise _Unfit(f"{at} is gone") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise _Unfit(f"the name {at!r} is too long for a file") from None
            raise

    def _take(self, count_bytes: int) -> None:
        with self._lock:
            self._done_bytes += count_bytes
            self._progress(self._done_bytes, self._total_bytes)

    def _remove_leftovers(self) -> None:
        """Make the folder, open to any user; remove what an earlier restore that was killed has left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o777)
        for path in self._folder.glob(f"{RESTORING}*"):
            remove_entry(path)


class _Unfit(Exception):
    """An object is not what was written down about it."""
