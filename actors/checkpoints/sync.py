"""Checkpoints: restored before training, stored while it goes on; each whole or absent, by one start at a time.

Here is when things happen, and what is told of them. What is written down is in `manifest.py`, the store's
side in `ledger.py`, this machine's in `folder.py`, the way up and down in `upload.py`
and `restore.py`.

An entry of the folder is stored once it has been at rest for a while. A new one goes to its plain place below
the location, and counts from the moment when the manifest lists it. One that was stored before is staged first: its
changed files go to `.raymaker/staged/`, the manifest lists them there, then they are copied to their plain places and
listed there. So at no moment is there no whole version. Entries that are deleted here are kept in the store.

With several machines an entry is all machines' files together, and is restored where every machine that began its
part has stored it. A part that its machine had not begun is missed by nobody, and one that several machines change in
place may come back with parts of different age: sharded checkpoints should each have a name of their own. Of a file
that several machines wrote, the machine with the lowest index counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from raymaker.actors.checkpoints.folder import LocalEntry, scan
from raymaker.actors.checkpoints.ledger import Ledger, naming_the_field
from raymaker.actors.checkpoints.manifest import Files, Manifest, Writer, plan_restore
from raymaker.actors.checkpoints.restore import Restore, RestoreReport
from raymaker.actors.checkpoints.upload import CheckpointUpload, Fate
from raymaker.actors.errors import Fenced, StorageError
from raymaker.actors.storage import ObjectStore
from raymaker.actors.store_errors import explain

__all__ = ["CheckpointSync", "RestoreReport", "Writer"]

CHECKPOINT_STORED = "CheckpointStored"
"""The kind of the event that tells of a new checkpoint."""
LOOK_S = 1.0
SETTLE_S = 2.0
"""How long an entry must be at rest. Longer than it takes to see that a container was killed in the midst of a file."""
LONGEST_PAUSE_S = 30.0
RESTLESS_S = 300.0
"""An entry that could not be stored for so long, since it changes all the time, is told of."""
STOP_TIMEOUT_S = 600.0
NAMED_COUNT = 5
MIB = 1024 * 1024

logger = logging.getLogger(__name__)


class CheckpointSync:
    """One machine's checkpoint folder and where it is kept. `tell` hears of events: a kind (CamelCase), a message.

    Call `restore` (or `resume` where the containers run already), then `start`, and `stop` when they have ended.
    """

    def __init__(
        self,
        store: ObjectStore,
        uri: str,
        folder: Path,
        writer: Writer,
        tell: Callable[[str, str], None],
        *,
        settle_s: float = SETTLE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._uri = uri
        self._folder = folder
        self._writer = writer
        self._tell_platform = tell
        self._settle_s = settle_s
        self._clock = clock
        self._sleep = sleep
        self._ledger = Ledger(store, uri, writer, clock)
        self._upload: CheckpointUpload | None = None
        self._seen: dict[str, tuple[LocalEntry, float]] = {}
        self._killed_at: float | None = None
        self._synced: dict[str, LocalEntry] = {}
        self._waiting_since: dict[str, float] = {}
        self._troubled: set[str] = set()
        self._told: set[str] = set()
        self._fenced: Fenced | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self, progress: Callable[[int, int], None] = lambda _done_bytes, _total_bytes: None) -> RestoreReport:
        """Claim the location and bring its checkpoints to the folder; `progress` hears bytes that came, and in all.

        Raises StorageError that names the field and the remedy, and Fenced where a later start has the location.
        """
        with naming_the_field(self._uri):
            manifest = self._ledger.begin()
        try:
            with naming_the_field(self._uri):
                brought, left_out = self._bring(Restore(self._store, self._ledger.uri, self._folder, progress))
        except OSError as error:
            raise explain(error, f"restore checkpoints from {self._uri} to", str(self._folder)) from error
        self._begin(manifest, brought)
        self._synced = {name: entry for name, entry in scan(self._folder).items() if name in brought}
        size_bytes = sum(stored.size_bytes for files in brought.values() for stored in files.values())
        report = RestoreReport(tuple(sorted(brought)), size_bytes, left_out)
        self._tell_restored(report)
        return report

    def resume(self) -> None:
        """Go on where an earlier process of this start ended, and leave the folder as it is. Raises as `restore`."""
        with naming_the_field(self._uri):
            manifest = self._ledger.go_on()
            plan = plan_restore(self._ledger.read_all(), self._ledger.list_present())
        newest = {name: versions[0].files.items() for name, versions in plan.versions.items()}
        self._begin(manifest, {name: {file: found[0] for file, found in files} for name, files in newest.items()})

    def start(self) -> None:
        """Sync from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def note_kill(self, killed_at: float) -> None:
        """Hear that a program that writes to the folder was killed: at `killed_at` (epoch seconds), or a second before.

        What it wrote just before may be half of something, and is not stored any more.
        """
        self._killed_at = min(killed_at, self._killed_at or killed_at)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S, killed_at: float | None = None) -> None:
        """End the sync, and store what lies in the folder, now that nothing writes there any more.

        `killed_at` is as for `note_kill`; None means that all programs ended by themselves, so that all is whole.
        Raises StorageError after `timeout_s`, and Fenced; both were told.
        """
        if killed_at is not None:
            self.note_kill(killed_at)
        deadline = self._clock() + timeout_s
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._give_up({"": f"an upload was still under way after {timeout_s:.0f} s"})
        pause_s = LOOK_S
        while failures := self.look(final=True):
            if self._clock() + pause_s > deadline:
                self._give_up(failures)
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if self._fenced is not None:
            raise self._fenced

    def look(self, *, final: bool = False) -> Mapping[str, str]:
        """Store what is new and at rest, in the `final` look everything. Returns what failed, by entry, and tells it.

        Once this start is fenced, it does nothing.
        """
        failures: dict[str, str] = {}
        with self._lock:
            if self._fenced is not None:
                return {}
            try:
                self._look(failures, final=final)
            except Fenced as error:
                self._fenced = error
                self._tell("CheckpointFenced", str(error))
                return {}
            except Exception as error:
                if not isinstance(error, StorageError):  # a mistake of ours must not end the sync unheard
                    logger.exception("a look at the checkpoints in %s failed", self._folder)
                failures[""] = str(error) if isinstance(error, StorageError) else repr(error)
            self._tell_trouble(failures)
        return failures

    def _bring(self, restore: Restore) -> tuple[dict[str, Files], dict[str, str]]:
        """Bring all that is whole; try once more what an earlier start was changing when it was fenced."""
        brought, torn = self._bring_once(restore, ())
        if torn:
            more, torn = self._bring_once(restore, brought)
            brought |= more
        return brought, torn

    def _bring_once(self, restore: Restore, known: Collection[str]) -> tuple[dict[str, Files], dict[str, str]]:
        torn: dict[str, str] = {}
        plan = plan_restore(self._ledger.read_all(torn.__setitem__), self._ledger.list_present())
        wanted = {name: versions for name, versions in plan.versions.items() if name not in known}
        brought, unfit = restore.fetch(dataclasses.replace(plan, versions=wanted))
        return brought, {**torn, **plan.torn, **unfit}

    def _begin(self, manifest: Manifest, baseline: Mapping[str, Files]) -> None:
        self._upload = CheckpointUpload(self._store, self._ledger, self._folder, manifest, baseline)

    def _run(self) -> None:
        pause_s = LOOK_S
        while not self._ended.wait(pause_s) and self._fenced is None:
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if self.look() else LOOK_S

    def _look(self, failures: dict[str, str], *, final: bool) -> None:
        upload = self._claimed
        for name in upload.unsettled():
            with _keeping(failures, name):
                upload.settle(name)
        entries = self._scan()
        if self._writer.machine_count > 1:
            upload.announce(name for name, entry in entries.items() if name not in entry.files)
        self._seen = {name: self._since_when(entry) for name, entry in entries.items()}
        for name, entry in sorted(entries.items(), key=lambda item: item[1].changed_at):
            self._tell_left_out(entry)
            if entry.files and not self._is_synced(entry) and self._is_at_rest(entry, final=final):
                with _keeping(failures, name):
                    self._put(entry, final=final)
        if final and not failures:
            upload.sweep()

    def _put(self, entry: LocalEntry, *, final: bool) -> None:
        sent = self._claimed.put(entry, self._synced.get(entry.name))
        if sent.fate is Fate.RESTLESS:
            if final:
                raise StorageError(f"{entry.name} changes while it is stored: is something still writing to it?")
            return
        self._synced[entry.name] = entry
        self._waiting_since.pop(entry.name, None)
        if sent.fate is Fate.STORED:  # told once: a program may write the same one every second
            self._tell_once(CHECKPOINT_STORED, f"{entry.name} was stored at {self._uri}")
        if sent.conflicts:
            self._tell_once(
                "CheckpointConflict",
                f"{_some(sent.conflicts)}: machine {self._writer.machine_index + 1} of {self._writer.machine_count} "
                "wrote other content than a machine before it, whose file is kept; let one machine write it, or give "
                "each machine's file a name of its own",
            )

    @property
    def _claimed(self) -> CheckpointUpload:
        if self._upload is None:
            raise RuntimeError("restore() or resume() comes first")
        return self._upload

    def _scan(self) -> dict[str, LocalEntry]:
        try:
            return scan(self._folder)
        except OSError as error:
            raise explain(error, "look at the checkpoint folder", str(self._folder)) from error

    def _is_synced(self, entry: LocalEntry) -> bool:
        synced = self._synced.get(entry.name)
        return synced is not None and synced.files == entry.files

    def _since_when(self, entry: LocalEntry) -> tuple[LocalEntry, float]:
        """The entry, and since when it is known to look like this."""
        seen, since = self._seen.get(entry.name, (None, 0.0))
        return entry, since if seen is not None and seen.files == entry.files else self._clock()

    def _is_at_rest(self, entry: LocalEntry, *, final: bool) -> bool:
        """Tell whether nothing writes to an entry any more, as far as can be seen; tell people where that lasts."""
        killed_at = self._killed_at
        if killed_at is not None and (entry.unfinished or entry.changed_at > killed_at - SETTLE_S):
            self._tell_once(
                "CheckpointIncomplete",
                f"{entry.name} was being written when its program was killed, or just before, and is not stored",
            )
            return False
        _, since = self._seen[entry.name]
        if final or (self._clock() - since >= self._settle_s and not entry.unfinished):
            return True
        waiting_since = self._waiting_since.setdefault(entry.name, self._clock())
        if self._clock() - waiting_since > RESTLESS_S:
            self._tell_once(
                "CheckpointIncomplete",
                f"{entry.name} has not been at rest for {RESTLESS_S:.0f} s, and what is new in it is stored when it "
                "is, or at the end; write a checkpoint under a name of its own, and leave it as it is",
            )
        return False

    def _give_up(self, failures: Mapping[str, str]) -> None:
        message = (
            f"CheckpointConfig.S3Uri {self._uri}: the last checkpoints could not be stored: {_some(failures.values())}"
        )
        self._tell("CheckpointSyncFailed", message)
        raise StorageError(message)

    def _tell_restored(self, report: RestoreReport) -> None:
        if report.restored:
            self._tell(
                "CheckpointRestored",
                f"{_some(report.restored)} ({_size(report.size_bytes)}) came from {self._uri}",
            )
        if report.left_out:
            reasons = [f"{name}: {reason}" for name, reason in report.left_out.items()]
            self._tell(
                "CheckpointIncomplete",
                f"at {self._uri} there is what cannot be taken for a whole checkpoint, and it was not restored: "
                f"{_some(reasons)}",
            )

    def _tell_trouble(self, failures: Mapping[str, str]) -> None:
        """Tell what began to fail, and what no longer does."""
        new = [reason for name, reason in failures.items() if name not in self._troubled]
        if new:
            self._tell("CheckpointSyncFailed", f"{_some(new)}. It is tried again until it works")
        if self._troubled and not failures:
            self._tell("CheckpointSyncRecovered", f"checkpoints are stored at {self._uri} again")
        self._troubled = set(failures)

    def _tell_left_out(self, entry: LocalEntry) -> None:
        for name, reason in entry.left_out.items():
            self._tell_once(
                "CheckpointLeftOut", f"{name!r} in the checkpoint folder is not stored: {reason}; write a plain file"
            )

    def _tell_once(self, kind: str, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._tell(kind, message)

    def _tell(self, kind: str, message: str) -> None:
        try:
            self._tell_platform(kind, message)
        except Exception:  # whoever listens must not end the sync
            logger.exception("could not tell %s: %s", kind, message)


@contextlib.contextmanager
def _keeping(failures: dict[str, str], name: str) -> Iterator[None]:
    """Note why an entry could not be stored, and go on with the next."""
    try:
        yield
    except Fenced:
        raise
    except StorageError as error:
        failures[name] = str(error)


def _some(words: Collection[str]) -> str:
    """A few of them, and how many more there are."""
    more = f" and {len(words) - NAMED_COUNT} more" if len(words) > NAMED_COUNT else ""
    return ", ".join(list(words)[:NAMED_COUNT]) + more


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes >= MIB else f"{size_bytes} bytes"
