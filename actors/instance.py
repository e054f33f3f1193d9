"""One VM-like machine: what it does for one attempt at a job, step by step. A plain class, made an actor elsewhere.

Owns the attempt's folder and lease on this machine, its containers and their exchange. Knows nothing of statuses, nor
of other machines: `attempt.py` has the order of the steps, `crew.py` the others.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raymaker.actors import contract
from raymaker.actors.algorithm import Algorithm, prepare_algorithm
from raymaker.actors.checkpoints.sync import CheckpointSync, Writer
from raymaker.actors.containers import AttemptLost, Containers
from raymaker.actors.contract import JobFolder, Seat
from raymaker.actors.exchange.changes import Changes, Revision
from raymaker.actors.exchange.hub import ExchangeHub
from raymaker.actors.exchange.seam import Across, Failure
from raymaker.actors.input_data import MIB, InputData
from raymaker.actors.lease import Lease
from raymaker.actors.metric_pump import MetricBuffer
from raymaker.actors.mounting import remove_tree
from raymaker.actors.packaging import stage_source
from raymaker.actors.runtime.base import (
    LABEL_HOME,
    LABEL_OWNER,
    ContainerHandle,
    ContainerRuntime,
    ExitStatus,
)
from raymaker.actors.site import Site
from raymaker.actors.spec import ContainerSpec, Place, SourceSpec, TrainingSpec
from raymaker.actors.storage import ObjectStore
from raymaker.actors.store_errors import explain
from raymaker.actors.training_container import (
    LABEL_ATTEMPT,
    LABEL_JOB,
    LABEL_RANK,
    LABEL_REVISION,
    Machine,
    training_container,
)

LEASE_TIMEOUT_S = 30.0
STARTED = "started.json"
FETCHED = "fetched"
"""A file that is there once all data and checkpoints are."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the place where shared memory lies
ARENA_VARIABLE = "RAYMAKER_EXCHANGE_ARENA_MIB"


class Instance:
    """The machine of one attempt. Enter it to own the attempt there: one owner at a time, by the kernel's word.

    `note` hears the kind and the message of events of the job. Raises LeaseHeld on entry while another live process
    owns the attempt.
    """

    def __init__(
        self, spec: TrainingSpec, site: Site, runtime: ContainerRuntime, place: Place, note: Callable[[str, str], None]
    ) -> None:
        self.spec = spec
        """What is in force, as far as this machine knows."""
        self._site = site
        self.place = place
        self.runtime = runtime
        self.note = note
        self.store = ObjectStore(site.store)
        part = spec.label if place.machine_count == 1 else f"{spec.label}-m{place.machine_index}"
        self.name = f"training-{spec.job_name}-{part}"
        self._root = (job := site.jobs / spec.job_name) / part
        shared = job / f"{spec.attempt}-channels"
        self.input = InputData.of(self.store, site, runtime.name, note, own=self._root, shared=shared)
        self._algorithm: Algorithm | None = None
        self._next: Algorithm | None = None
        self._staged: Path | None = None
        self._has_traces = True
        """Whether a folder of this job was here: it is made before any container, and goes after all of them."""
        self._exchange: ExchangeHub | None = None
        self._checkpoints: CheckpointSync | None = None
        self.metrics = MetricBuffer()
        """Numbers that the containers have told their exchange."""
        self._changes = Changes()
        self._containers = self._make_containers()

    def __enter__(self) -> Self:
        self._lease = Lease.acquire(self._site.home, self.name, LEASE_TIMEOUT_S)
        self._has_traces = self._root.parent.exists()
        self._root.mkdir(parents=True, exist_ok=True)
        self.input.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.input.release()
        with contextlib.suppress(OSError):  # other attempts, or other machines' instances here, still have theirs in it
            self._root.parent.rmdir()
        self._lease.release()

    @property
    def seats(self) -> list[Seat]:
        """The containers of this machine, in the order of their ranks."""
        return [Seat(self.place, index) for index in range(self.place.containers_per_machine)]

    @property
    def handles(self) -> Mapping[int, ContainerHandle]:
        """The containers that were started, by rank."""
        return self._containers.handles

    def folder(self, seat: Seat) -> JobFolder:
        """Where one container's part of /opt/ml lies."""
        pool = self.spec.warm_pool
        cache = self._site.warm_pools / pool / str(self.place.machine_index) if pool is not None else None
        return JobFolder(self._root / str(seat.index), self.input.shared_folder, self._root / "checkpoints", cache)

    def pids(self) -> Mapping[int, int]:
        """The first process of each container that can be seen from here, by rank. Raises EngineAway."""
        found = {rank: self.runtime.inspect(handle).pid for rank, handle in self.handles.items()}
        return {rank: pid for rank, pid in found.items() if pid is not None}

    def input_bytes(self) -> int:
        """How much input was fetched for the containers here, and streamed to them."""
        return self.input.count_bytes(self.spec.channels, self._folders)

    @property
    def scratch(self) -> Path:
        """A folder of this attempt that no container sees."""
        return self._root

    def was_started(self) -> bool:
        """Tell whether an earlier owner of this attempt started its containers, even if it died right after."""
        mine = {LABEL_HOME: str(self._site.home), LABEL_OWNER: self.name}
        return self._has_traces and self._containers.were_started(mine, LABEL_RANK)

    def is_outdated(self) -> bool:
        """Tell whether its containers were to be replaced when their owner died."""
        return self._started_revision() < self.spec.revisions.restart

    def remove_older(self) -> None:
        """Remove what earlier starts of this job left on this machine. Raises LeaseHeld where its owner lives on."""
        mine = {LABEL_HOME: str(self._site.home), LABEL_JOB: self.spec.job_name}
        for handle, labels in self.runtime.owned(mine) if self._has_traces else ():
            if labels[LABEL_ATTEMPT] != self.spec.label:
                with Lease.acquire(self._site.home, labels[LABEL_OWNER], LEASE_TIMEOUT_S):
                    self.runtime.remove(handle)

    def prepare_algorithm(self) -> str | None:
        """Resolve and pull the image, or stage the source code. Returns the image's digest, None for bare source."""
        self._algorithm = prepare_algorithm(
            self.runtime, self.store, self._site, image=self.spec.image, source=self.spec.source
        )
        return self._algorithm.digest

    def fetch_channels(self, tell: Callable[[str], None]) -> None:
        """Lay out /opt/ml and bring every channel's data to it, or open it; `tell` hears of progress, for people.

        What is here already, for containers that were replaced meanwhile, is not fetched again.
        """
        is_new = not self.has_data()
        for seat in self.seats if is_new else ():
            contract.lay_out(self.folder(seat), self.spec, seat)
        self.input.fetch(self.spec.channels, self._folders, self.place.world_size, tell, is_new=is_new)

    def restore_checkpoints(self) -> None:
        """Bring what an earlier start or job left at the checkpoint location, or go on here. Raises StorageError."""
        if self.has_data():
            self._resume_checkpoints()
        elif (checkpoints := self._open_checkpoints()) is not None:
            checkpoints.restore()
        (self._root / FETCHED).touch()

    def has_data(self) -> bool:
        """Tell whether all data and checkpoints were brought here, whatever became of containers since."""
        return (self._root / FETCHED).exists()

    def check_output(self) -> None:
        """Fail before training, not after it, where the output location cannot be written. Raises StorageError."""
        self.store.check_writable(f"{self.spec.output_uri.rstrip('/')}/{self.spec.job_name}/output")

    def start(self, across: Across | None, hosts: Mapping[str, str]) -> None:
        """Start the containers and their exchange; `hosts` has the addresses of containers that are elsewhere."""
        self._changes = Changes(self._revision(), self.spec.revisions.number)
        self._open_exchange(across)
        self.input.streams.start()
        self._containers.start({seat.rank: self._container(seat, hosts) for seat in self.seats})
        self._start_sync()

    def take_up(self) -> None:
        """Go on with the containers that an earlier owner started. Raises AttemptLost.

        Containers that exchange weights, or are streamed to, cannot be taken up: what was under way to them is lost
        with its owner, and to the reader of a pipe that loss looks like the end of the data.
        """
        if any(channel.is_streamed or channel.is_fast for channel in self.spec.channels):
            raise AttemptLost("The process that brought the container's data died, perhaps in the middle of a pass")
        if self.place.world_size > 1:
            raise AttemptLost("The process beside the containers died, and their exchange with it")
        self._changes = Changes(started_number=self._started_revision())
        self._open_exchange(None, again=True)
        self._changes.publish(self._revision())
        self._containers.take_up(self.place.ranks)
        self._resume_checkpoints()
        self._start_sync()

    def started_at(self) -> float:
        """When the last container started, in epoch seconds."""
        return self._containers.started_at()

    def wait(self, timeout_s: float, known_count: int | None = None) -> Mapping[int, ExitStatus]:
        """Return how those containers ended that have ended (see `Containers.wait`). Raises AttemptLost."""
        return self._containers.wait(timeout_s, known_count)

    def stop(self, grace_s: float | None = None) -> None:
        """SIGTERM, grace, SIGKILL to every container."""
        self._containers.stop(self._site.stop_grace_s if grace_s is None else grace_s)

    @property
    def failure(self) -> Failure | None:
        """Why the exchange cannot go on, None where it can."""
        return self._exchange.failure if self._exchange is not None else None

    def announce(self, name: str, document: Mapping[str, Any]) -> None:
        """Tell the containers something as a document of their exchange; those that do not look do not hear of it."""
        if self._exchange is not None:
            self._exchange.put_document(name, document)

    def stage_code(self, source: SourceSpec) -> str | None:
        """Lay the code of a revision to come before the containers; a reason where they would have to be replaced.

        Raises PackagingError, ArchiveError, StorageError.
        """
        staged = stage_source(self.store, source, self._site.sources)
        if staged.has_build:
            return f"{source.uri} has a build.sh, which runs only when containers are made anew"
        self._staged = staged.folder / "code"
        return None

    def adopt(self, spec: TrainingSpec) -> None:
        """Take what is in force from the platform, for the start that runs here."""
        self.spec = dataclasses.replace(spec, start=self.spec.start)

    def tell(self, spec: TrainingSpec) -> None:
        """Have the containers hear of a revision: its hyperparameters, its code. Raises WorkError."""
        before = self.spec
        self.adopt(spec)
        try:
            if spec.revisions.code == spec.revisions.number and self._staged is not None and self._exchange is not None:
                self._exchange.add_code(self._staged, spec.revisions.code)
            for seat in self.seats:
                contract.write_hyperparameters(self.folder(seat), spec)
            self._changes.publish(self._revision())
        except OSError as error:
            self.spec = before
            raise explain(error, "lay the change before the containers in", str(self._root)) from error

    def heard(self, number: int) -> tuple[int, ...]:
        """The ranks here that have heard of a revision."""
        return self._changes.heard(number)

    def take_back(self, number: int, spec: TrainingSpec) -> bool:
        """Go back to `spec` from a revision of which nobody here has heard; False where somebody has."""
        told = self.spec
        self.adopt(spec)
        if not self._changes.take_back(number, self._revision()):
            self.spec = told
            return False
        for seat in self.seats:
            with contextlib.suppress(OSError):  # the container has made something else of the folder
                contract.write_hyperparameters(self.folder(seat), spec)
        return True

    def prepare_next(self, spec: TrainingSpec) -> None:
        """Make ready what is to be run in place of the containers that still run. Raises as `prepare_algorithm`."""
        if self._algorithm is not None and (spec.image, spec.source) == (self.spec.image, self.spec.source):
            self._next = self._algorithm
            return
        self._next = prepare_algorithm(self.runtime, self.store, self._site, image=spec.image, source=spec.source)

    def change_over(self, spec: TrainingSpec, *, deletes_model: bool) -> str | None:
        """Take away containers that have ended, and lay out what others find in their place: the data stays.

        Returns the digest of the image that they will run.
        """
        self.adopt(spec)
        self.remove_outdated(deletes_model=deletes_model)
        if self._next is not None:
            self._algorithm, self._next = self._next, None
        if self.place.machine_count > 1:  # each machine has its own checkpoints: all go on from what is stored
            (self._root / FETCHED).unlink()
            contract.empty(self._root / "checkpoints")
        self.restore_checkpoints()
        return self._algorithm.digest if self._algorithm is not None else None

    def remove_outdated(self, *, deletes_model: bool) -> None:
        """Take containers away, those that still run too, and lay out what is in force now for the next ones."""
        self.stop()
        self._containers.remove()
        if self._exchange is not None:
            self._exchange.close()
        self._containers = self._make_containers()
        for seat in self.seats:
            contract.clear_old(self.folder(seat), model=deletes_model)
            contract.write_hyperparameters(self.folder(seat), self.spec)

    def finish_checkpoints(self, killed_at: float | None) -> None:
        """Store the last checkpoints, now that no container writes any more. Raises StorageError.

        `killed_at` (epoch seconds) says that one was killed: what it wrote last may be half of something.
        """
        if self._checkpoints is not None:
            self._checkpoints.stop(killed_at=killed_at)

    def read_failure(self, seat: Seat) -> str | None:
        """What the algorithm wrote to /opt/ml/output/failure, None where it wrote nothing."""
        return contract.read_failure(self.folder(seat))

    def last_log_lines(self, rank: int, count: int) -> list[str]:
        """The end of a container's log."""
        return [line.text for line in collections.deque(self.runtime.logs(self.handles[rank]), maxlen=count)]

    def clean_up(self) -> None:
        """Leave nothing behind. Called once the attempt's end is durable elsewhere."""
        self._containers.remove()
        self.input.streams.close()
        if self._exchange is not None:
            self._exchange.close()
        remove_tree(self._root)

    @property
    def _folders(self) -> dict[int, JobFolder]:
        """The containers' folders, by rank."""
        return {seat.rank: self.folder(seat) for seat in self.seats}

    def _make_containers(self) -> Containers:
        """Containers of one revision. What is late from those before concerns nobody any more."""

        def ended(rank: int, status: ExitStatus) -> None:
            if self._containers is mine:
                self._rank_ended(rank, status)

        mine = Containers(self.runtime, self._root / STARTED, ended)
        return mine

    def _started_revision(self) -> int:
        """The revision with which the oldest container here was started."""
        mine = {LABEL_HOME: str(self._site.home), LABEL_OWNER: self.name}
        found = [int(labels.get(LABEL_REVISION, 0)) for _, labels in self.runtime.owned(mine)]
        return min(found, default=self.spec.revisions.number)

    def _revision(self) -> Revision:
        code = self._exchange.code(self.spec.revisions.code) if self._exchange is not None else None
        return Revision.of(self.spec, code)

    def _open_exchange(self, across: Across | None, *, again: bool = False) -> None:
        arena_mib = self.spec.environment.get(ARENA_VARIABLE)
        self._exchange = ExchangeHub(
            self._root / "exchange",
            SHARED_MEMORY / f"raymaker-{self._site.tag}-{self.name}",
            self.place,
            across=across,
            arena_bytes=int(arena_mib) * MIB if arena_mib else self._site.exchange_arena_bytes,
            timeout_s=self._site.exchange_timeout_s,
            on_metrics=self.metrics.put,
            changes=self._changes,
        )
        self._exchange.start(again=again)

    def _rank_ended(self, rank: int, status: ExitStatus) -> None:
        if self._checkpoints is not None and (status.signal is not None or status.lost):
            self._checkpoints.note_kill(time.time())
        if self._exchange is not None:
            self._exchange.rank_ended(rank, status.describe())

    def _open_checkpoints(self) -> CheckpointSync | None:
        if self.spec.checkpoint_uri is not None:
            place, spec = self.place, self.spec
            writer = Writer(spec.attempt, spec.start, place.machine_index, place.machine_count, spec.job_name)
            folder = self._root / "checkpoints"
            self._checkpoints = CheckpointSync(self.store, self.spec.checkpoint_uri, folder, writer, self.note)
        return self._checkpoints

    def _resume_checkpoints(self) -> None:
        if (checkpoints := self._open_checkpoints()) is not None:
            checkpoints.resume()

    def _start_sync(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.start()

    def _container(self, seat: Seat, hosts: Mapping[str, str]) -> ContainerSpec:
        if self._algorithm is None or self._exchange is None:
            raise RuntimeError("the algorithm was not prepared")
        mounts = (*contract.mounts(self.folder(seat), self.spec), *self._exchange.mounts(seat.index))
        machine = Machine(self._site, self.runtime.name, self.name)
        return training_container(self.spec, seat, machine, self._algorithm, mounts=mounts, hosts=hosts)
