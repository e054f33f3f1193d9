"""Entries of the checkpoint folder on their way to the store: some whole version of each lies there at any moment.

Does no looking and no telling: `checkpoints.py` says what is to be stored, and when.
"""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from raymaker.actors.checkpoints.folder import FileMark, LocalEntry, checksum, open_inside, path_of, scan
from raymaker.actors.checkpoints.ledger import Ledger
from raymaker.actors.checkpoints.manifest import STAGED, Files, Manifest, StoredFile, files_of_others, is_below
from raymaker.actors.storage import ObjectStore
from raymaker.actors.store_errors import explain

T = TypeVar("T")
R = TypeVar("R")
THREADS = 8


class Fate(enum.Enum):
    """What became of an entry."""

    STORED = "stored"
    UNCHANGED = "unchanged"
    """It holds what is stored already."""
    RESTLESS = "restless"
    """It changed while it was read, so what was read does not count."""


@dataclasses.dataclass(frozen=True)
class Sent:
    """How `CheckpointUpload.put` went. `conflicts` are files that a machine of lower index has stored differently."""

    fate: Fate
    size_bytes: int = 0
    conflicts: tuple[str, ...] = ()


class CheckpointUpload:
    """Stores entries and writes them down. `baseline`: the entries that earlier starts left, as they were restored."""

    def __init__(
        self, store: ObjectStore, ledger: Ledger, folder: Path, manifest: Manifest, baseline: Mapping[str, Files]
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._folder = folder
        self._manifest = manifest
        self._baseline = baseline
        self._tried = {*manifest.entries, *baseline}
        self._stages: set[str] = set()
        self._is_certain = True

    def announce(self, names: Iterable[str]) -> None:
        """Write down that these are about to be stored, so that until they are nobody takes their objects for whole."""
        new = set(names) - self._manifest.begun - self._tried
        if new:
            self._write(dataclasses.replace(self._manifest, begun=self._manifest.begun | new))

    def put(self, entry: LocalEntry, before: LocalEntry | None) -> Sent:
        """Store an entry, which looked like `before` when it was stored last. Raises StorageError, Fenced."""
        name, known = entry.name, self._known(entry.name)
        files = self._read(entry, before, known)
        theirs = self._files_of_others(name)
        conflicts = tuple(file for file in files if file in theirs and not files[file].same_content(theirs[file]))
        files = {file: stored for file, stored in files.items() if file not in theirs or stored.inherited}
        if files == known and (name in self._manifest.entries or name not in self._manifest.begun):
            return Sent(Fate.UNCHANGED, conflicts=conflicts)
        files, sent = self._send(name, files)
        if scan(self._folder, only=name).get(name, LocalEntry(name)).files != entry.files:
            self._sweep()
            return Sent(Fate.RESTLESS)
        self._commit(name, files)
        self.settle(name)
        if self._ledger.is_alone:  # else it may be another machine's
            self._remove(file for file, stored in known.items() if file not in files and not stored.inherited)
        self._sweep()
        return Sent(Fate.STORED, sum(stored.size_bytes for stored in sent), conflicts)

    def unsettled(self) -> list[str]:
        """Entries that still lie staged, since copying them failed or an earlier start did not come to it."""
        names = {*self._manifest.entries, *(self._baseline if self._ledger.claim.machine_index == 0 else ())}
        return sorted(name for name in names if _staged(self._known(name)))

    def settle(self, name: str) -> None:
        """Copy what is staged of an entry to its plain place. Raises StorageError, Fenced."""
        files = self._known(name)
        staged = _staged(files)
        if staged:
            self._each(self._copy_to_place, staged.items())
            self._commit(name, {file: dataclasses.replace(stored, at=file) for file, stored in files.items()})
            self._sweep()

    def sweep(self) -> None:
        """Remove staged objects that nothing refers to any more, also those of earlier starts. Raises StorageError.

        An earlier start may have written down one more version just as it was fenced: where this start has not stored
        the entry since, that version is the one that counts.
        """
        stale = self._ledger.stale_stages() if self._ledger.claim.machine_index == 0 else []
        if stale:
            listed = [item for manifest in self._ledger.read_all() for item in manifest.entries.items()]
            used = {it.at for name, files in listed if name not in self._manifest.entries for it in files.values()}
            for stage in [it for it in stale if not any(is_below(at, it) for at in used)]:
                self._store.delete_prefix(self._ledger.uri(f"{stage}/"))
        self._stages |= set(self._ledger.own_stages())
        self._sweep()

    def _known(self, name: str) -> Files:
        """What the store holds of an entry, as far as this start knows."""
        if name in self._manifest.entries:
            return self._manifest.entries[name]
        inherited = self._baseline.get(name, {})
        return {file: dataclasses.replace(stored, inherited=True) for file, stored in inherited.items()}

    def _read(self, entry: LocalEntry, before: LocalEntry | None, known: Files) -> dict[str, StoredFile]:
        """Say what an entry's files hold: as the store knows them, or where they hold something else, with no place."""
        marks = before.files if before is not None else {}

        def read(item: tuple[str, FileMark]) -> StoredFile:
            name, mark = item
            if name in known and marks.get(name) == mark:
                return known[name]
            try:
                with open_inside(self._folder, name) as content:
                    found = StoredFile(*checksum(content), at="")
            except OSError as error:
                raise explain(error, "read", str(self._folder / name)) from error
            return known[name] if name in known and found.same_content(known[name]) else found

        return dict(zip(entry.files, self._each(read, entry.files.items()), strict=True))

    def _files_of_others(self, name: str) -> dict[str, StoredFile]:
        claim = self._ledger.claim
        return files_of_others(self._ledger.read_mates(), claim, name) if claim.machine_index > 0 else {}

    def _send(self, name: str, files: Files) -> tuple[dict[str, StoredFile], list[StoredFile]]:
        """Upload the files that have no place yet: to the plain one, or where that may hold something, to a stage."""
        stage = ""
        if name in self._tried:
            stage = f"{STAGED}/{self._ledger.claim.tag}/{uuid.uuid4().hex[:12]}"
            self._stages.add(stage)
            stage += "/"
        else:
            self.announce([name])
        placed = {
            file: stored if stored.at else dataclasses.replace(stored, at=f"{stage}{file}")
            for file, stored in files.items()
        }
        new = {file: stored for file, stored in placed.items() if not files[file].at}
        self._each(self._upload, new.items())
        return placed, list(new.values())

    def _upload(self, item: tuple[str, StoredFile]) -> None:
        name, stored = item
        try:
            with open_inside(self._folder, name) as content:
                self._store.upload(path_of(content), self._ledger.uri(stored.at), self._ledger.check_lately)
        except OSError as error:
            raise explain(error, "read", str(self._folder / name)) from error

    def _copy_to_place(self, item: tuple[str, StoredFile]) -> None:
        name, stored = item
        self._store.copy(self._ledger.uri(stored.at), self._ledger.uri(name), self._ledger.check)

    def _remove(self, names: Iterable[str]) -> None:
        """Remove plain objects that the manifest listed until now, where no folder of that name has come instead."""
        listed = [file for files in self._manifest.entries.values() for file in files]
        for name in names:
            if not any(is_below(file, name) for file in listed):
                self._ledger.check()
                self._store.delete_prefix(self._ledger.uri(name))

    def _commit(self, name: str, files: Files) -> None:
        self._tried.add(name)  # first: a write that fails may have come through all the same
        self._write(dataclasses.replace(self._manifest, entries={**self._manifest.entries, name: files}))

    def _write(self, manifest: Manifest) -> None:
        self._is_certain = False
        self._ledger.write(manifest)
        self._manifest = manifest
        self._is_certain = True

    def _sweep(self) -> None:
        """Remove the stages that the manifest does not refer to, where it is certain what the store has of that."""
        if not self._is_certain:
            return
        used = {stored.at for files in self._manifest.entries.values() for stored in files.values()}
        for stage in [it for it in self._stages if not any(is_below(at, it) for at in used)]:
            self._store.delete_prefix(self._ledger.uri(f"{stage}/"))
            self._stages.discard(stage)

    def _each(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do something with each item, several at a time; the first error ends it."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="checkpoints")
        try:
            return [task.result() for task in [threads.submit(work, item) for item in items]]
        finally:
            threads.shutdown(cancel_futures=True)


def _staged(files: Files) -> dict[str, StoredFile]:
    return {name: stored for name, stored in files.items() if stored.at != name}
