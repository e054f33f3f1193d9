"""Stored checkpoints as whoever only reads them sees them: listed, and fetched one at a time, whole and verified."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raymaker.actors.checkpoints.ledger import Ledger
from raymaker.actors.checkpoints.manifest import Plan, Version, Writer, plan_restore
from raymaker.actors.checkpoints.restore import Restore
from raymaker.actors.errors import ObjectNotFound, StorageError
from raymaker.actors.storage import ObjectStore

_READER = Writer(attempt=0)
"""Writes nothing and claims nothing."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """One checkpoint that is whole: an entry of the checkpoint folder. `modified_at` is epoch seconds."""

    name: str
    size_bytes: int
    file_count: int
    modified_at: float


def list_checkpoints(store: ObjectStore, uri: str) -> list[StoredCheckpoint]:
    """Find what lies whole at a checkpoint location, newest first. Raises StorageError."""
    ledger = Ledger(store, uri, _READER)
    present = ledger.list_objects()
    plan = plan_restore(ledger.read_all(), {name: lying.size_bytes for name, lying in present.items()})
    times = {name: lying.modified_at for name, lying in present.items()}
    found = [_describe(name, versions[0], times) for name, versions in plan.versions.items()]
    return sorted(found, key=lambda it: (it.modified_at, it.name), reverse=True)


def fetch_checkpoint(store: ObjectStore, uri: str, name: str, folder: Path) -> None:
    """Bring a checkpoint to `folder`: the files of one that is a folder, else the one file under its own name.

    Raises StorageError, and ObjectNotFound where it is not there, or not whole.
    """
    ledger = Ledger(store, uri, _READER)
    plan = plan_restore(ledger.read_all(), ledger.list_present())
    wanted = Plan({name: plan.versions[name]} if name in plan.versions else {}, {})
    place = folder.with_name(f"{folder.name}-checkpoint")
    try:
        fetched, torn = Restore(store, ledger.uri, place, lambda _done, _total: None).fetch(wanted)
        if name not in fetched:
            reason = torn.get(name) or plan.torn.get(name) or "nothing of that name lies there"
            raise ObjectNotFound(f"checkpoint {name} at {uri} cannot be had: {reason}")
        _move(place / name, folder)
    except OSError as error:
        raise StorageError(f"checkpoint {name} at {uri} could not be fetched: {error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move(entry: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if entry.is_dir():
        entry.rename(folder)
    else:
        folder.mkdir()
        entry.rename(folder / entry.name)


def _describe(name: str, version: Version, times: Mapping[str, float]) -> StoredCheckpoint:
    newest = max(max(times.get(stored.at, 0.0) for stored in alternatives) for alternatives in version.files.values())
    return StoredCheckpoint(name, version.size_bytes, len(version.files), newest)
