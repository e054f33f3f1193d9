"""The written side of a checkpoint location: who has claimed it, what is stored there, and who must stop writing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from raymaker.actors.checkpoints.manifest import MANIFESTS, STAGED, Claim, Manifest, ManifestError, Writer, next_claim
from raymaker.actors.errors import Fenced, ObjectNotFound, StorageError
from raymaker.actors.storage import ObjectInfo, ObjectStore, child_uri

FENCE_AGE_S = 1.0
"""How old the last look at the claims may be when an object is written. What the manifest refers to is changed after
a fresh look only."""
MANIFEST_LIMIT_BYTES = 256 * 1024 * 1024
THREADS = 16


class Ledger:
    """The manifests at one location, as one writer reads and adds to them. Threads may share it."""

    def __init__(
        self, store: ObjectStore, uri: str, writer: Writer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._uri = uri.rstrip("/")
        self._writer = writer
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._claim: Claim | None = None

    @property
    def claim(self) -> Claim:
        """This writer's own."""
        if self._claim is None:
            raise RuntimeError("the checkpoint location was not claimed")
        return self._claim

    @property
    def is_alone(self) -> bool:
        """Whether the job has one machine only."""
        return self._writer.machine_count == 1

    def uri(self, name: str) -> str:
        """Where an object lies."""
        return child_uri(self._uri, name)

    def begin(self) -> Manifest:
        """Claim the location: from now on earlier starts of the job are fenced. Raises Fenced where a later one has.

        Proves that the location can be written and listed.
        """
        self._claim = next_claim(self._claims(), self._writer)
        manifest = Manifest(self._claim)
        self.write(manifest)
        self.check()  # a later start may have come between
        return manifest

    def go_on(self) -> Manifest:
        """Take up the claim that this writer made before it was started again, or make it. Raises Fenced."""
        writer = self._writer
        mine = [
            claim
            for claim in self._claims()
            if (claim.job, claim.turn, claim.machine_index) == (writer.job, writer.turn, writer.machine_index)
        ]
        if not mine:
            return self.begin()
        self._claim = max(mine, key=lambda claim: claim.generation)
        self.check()
        return self._read(self._claim)

    def read_all(self, on_damaged: Callable[[str, str], object] = lambda _name, _reason: None) -> list[Manifest]:
        """Every manifest that can be read; `on_damaged` hears the names of the others, and why."""

        def read(claim: Claim) -> Manifest | None:
            try:
                return self._read(claim)
            except ManifestError as error:
                on_damaged(claim.manifest_name, str(error))
                return None

        with ThreadPoolExecutor(THREADS, thread_name_prefix="manifests") as threads:
            return [manifest for manifest in threads.map(read, self._claims()) if manifest is not None]

    def read_mates(self) -> list[Manifest]:
        """The manifests of the machines of lower index in the same start."""
        mine = self.claim
        mates = [it for it in self._claims() if (it.job, it.turn) == (mine.job, mine.turn)]
        found = []
        for claim in mates:
            with contextlib.suppress(ManifestError):  # told at the next restore
                found += [self._read(claim)] if claim.machine_index < mine.machine_index else []
        return found

    def list_present(self) -> dict[str, int]:
        """Everything that lies at the location: names of objects, and their sizes in bytes."""
        return {name: item.size_bytes for name, item in self.list_objects().items()}

    def list_objects(self) -> dict[str, ObjectInfo]:
        """Everything that lies at the location, by name."""
        return {item.relative_name: item for item in self._list("")}

    def stale_stages(self) -> list[str]:
        """Folders of staged objects that earlier starts of this job have left."""
        names = {item.relative_name.partition("/")[0] for item in self._list(f"{STAGED}/")}
        claims = {name: Claim.parse(name) for name in names}
        return [f"{STAGED}/{name}" for name, claim in claims.items() if claim is not None and self.claim.fences(claim)]

    def own_stages(self) -> list[str]:
        """Folders of staged objects that this writer has left."""
        folder = f"{STAGED}/{self.claim.tag}"
        names = {item.relative_name.partition("/")[0] for item in self._list(f"{folder}/")}
        return [f"{folder}/{name}" for name in names]

    def write(self, manifest: Manifest) -> None:
        """Write down what is stored: the moment from which it counts. Raises Fenced."""
        self._store.write_bytes(self.uri(manifest.claim.manifest_name), manifest.encode(), self.check)

    def check(self, max_age_s: float = 0.0) -> None:
        """Raise Fenced where this writer must not write any more, by a look that is at most `max_age_s` old."""
        with self._lock:
            if self._clock() - self._looked_at < max_age_s:
                return
            now = self._clock()
            later = next((claim for claim in self._claims() if claim.fences(self.claim)), None)
            if later is not None:
                raise Fenced(
                    f"attempt {later.attempt}, start {later.start} of the job has claimed {self._uri}, so this one "
                    f"(attempt {self.claim.attempt}, start {self.claim.start}) writes no more checkpoints there. Where "
                    "there is no such attempt, since an earlier job had the same name, give another "
                    f"CheckpointConfig.S3Uri, or remove {self.uri(later.manifest_name)}"
                )
            self._looked_at = now

    def check_lately(self) -> None:
        """`check`, as it is made before every object."""
        self.check(FENCE_AGE_S)

    def _claims(self) -> list[Claim]:
        claims = (Claim.parse(item.relative_name) for item in self._list(f"{MANIFESTS}/"))
        return [claim for claim in claims if claim is not None]

    def _list(self, folder: str) -> list[ObjectInfo]:
        try:
            return self._store.list_objects(f"{self._uri}/{folder}")
        except ObjectNotFound:
            return []

    def _read(self, claim: Claim) -> Manifest:
        content = self._store.read_bytes(self.uri(claim.manifest_name), MANIFEST_LIMIT_BYTES)
        return Manifest.decode(claim, content)


@contextlib.contextmanager
def naming_the_field(uri: str) -> Iterator[None]:
    """Let errors of the store say which field of the request they are about, and what can be done."""
    try:
        yield
    except Fenced:
        raise
    except StorageError as error:
        raise StorageError(
            f"CheckpointConfig.S3Uri {uri}: {error}. It must name a place that raymaker can list, read and write; "
            "correct it, or leave CheckpointConfig out"
        ) from error
