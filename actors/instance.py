"""One VM-like machine: what it does for one attempt at a job, step by step. A plain class, made an actor elsewhere.

Owns the attempt's folder and lease on this machine, its containers and their exchange. Knows nothing of statuses, nor
of other machines: `attempt.py` has the order of the steps, `crew.py` the others.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raymaker.actors import contract
from raymaker.actors.algorithm import Algorithm, prepare_algorithm
from raymaker.actors.channels.file import fetch_channel
from raymaker.actors.channels.once import SharedChannels
from raymaker.actors.channels.stream import Streams
from raymaker.actors.checkpoints.sync import CheckpointSync, Writer
from raymaker.actors.containers import AttemptLost, Containers
from raymaker.actors.contract import JobFolder, Seat
from raymaker.actors.errors import UnsupportedError
from raymaker.actors.exchange.hub import ExchangeHub
from raymaker.actors.exchange.seam import Across, Failure
from raymaker.actors.lease import Lease
from raymaker.actors.metric_pump import MetricBuffer
from raymaker.actors.runtime.base import (
    LABEL_HOME,
    LABEL_KIND,
    LABEL_OWNER,
    ContainerHandle,
    ContainerRuntime,
    ExitStatus,
)
from raymaker.actors.site import Site
from raymaker.actors.spec import ChannelSpec, ContainerSpec, Network, Place, TrainingSpec
from raymaker.actors.storage import ObjectStore

LABEL_JOB = "raymaker.job"
LABEL_ATTEMPT = "raymaker.attempt"
LABEL_RANK = "raymaker.rank"
LEASE_TIMEOUT_S = 30.0
STARTED = "started.json"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the place where shared memory lies
ARENA_VARIABLE = "RAYMAKER_EXCHANGE_ARENA_MIB"
MIB = 1024 * 1024


class Instance:
    """The machine of one attempt. Enter it to own the attempt there: one owner at a time, by the kernel's word.

    `note` hears the kind and the message of events of the job. Raises LeaseHeld on entry while another live process
    owns the attempt.
    """

    def __init__(
        self, spec: TrainingSpec, site: Site, runtime: ContainerRuntime, place: Place, note: Callable[[str, str], None]
    ) -> None:
        self._spec = spec
        self._site = site
        self.place = place
        self.runtime = runtime
        self.note = note
        self.store = ObjectStore(site.store)
        part = spec.label if place.machine_count == 1 else f"{spec.label}-m{place.machine_index}"
        self.name = f"training-{spec.job_name}-{part}"
        job = site.jobs / spec.job_name
        self._root = job / part
        self._channels = SharedChannels(job / f"{spec.attempt}-channels")
        self.streams = Streams(self.store, self._root, site.stream_buffer_bytes, note)
        """The channels that come while the containers run."""
        self._algorithm: Algorithm | None = None
        self._exchange: ExchangeHub | None = None
        self._checkpoints: CheckpointSync | None = None
        self.metrics = MetricBuffer()
        """Numbers that the containers have told their exchange."""
        self._containers = Containers(runtime, self._root / STARTED, self._rank_ended)

    def __enter__(self) -> Self:
        self._lease = Lease.acquire(self._site.home, self.name, LEASE_TIMEOUT_S)
        self._root.mkdir(parents=True, exist_ok=True)
        self._channels.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.streams.close()
        self._channels.release()
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
        return JobFolder(self._root / str(seat.index), self._channels.folder, self._root / "checkpoints")

    @property
    def scratch(self) -> Path:
        """A folder of this attempt that no container sees."""
        return self._root

    def was_started(self) -> bool:
        """Tell whether an earlier owner of this attempt started its containers, even if it died right after."""
        mine = {LABEL_HOME: str(self._site.home), LABEL_OWNER: self.name}
        return self._containers.were_started(mine, LABEL_RANK)

    def remove_older(self) -> None:
        """Remove what earlier starts of this job left on this machine. Raises LeaseHeld where its owner lives on."""
        mine = {LABEL_HOME: str(self._site.home), LABEL_JOB: self._spec.job_name}
        for handle, labels in self.runtime.owned(mine):
            if labels[LABEL_ATTEMPT] != self._spec.label:
                with Lease.acquire(self._site.home, labels[LABEL_OWNER], LEASE_TIMEOUT_S):
                    self.runtime.remove(handle)

    def prepare_algorithm(self) -> str | None:
        """Resolve and pull the image, or stage the source code. Returns the image's digest, None for bare source."""
        self._algorithm = prepare_algorithm(
            self.runtime, self.store, self._site, image=self._spec.image, source=self._spec.source
        )
        return self._algorithm.digest

    def fetch_channels(self, tell: Callable[[str], None]) -> None:
        """Lay out /opt/ml and bring every channel's data to it, or open it; `tell` hears of progress, for people."""
        for seat in self.seats:
            contract.lay_out(self.folder(seat), self._spec, seat)
        for channel in self._spec.channels:
            if channel.is_streamed:
                tell(f"Looking up channel {channel.name}")
                folders = {seat.rank: self.folder(seat).data for seat in self.seats}
                self.streams.find(channel, folders, self.place.world_size)
            elif contract.is_sharded(channel):
                for seat in self.seats:
                    self._fetch(channel, self.folder(seat).channel(channel), tell, seat.rank, self.place.world_size)
            else:
                self._channels.fetch(channel.name, lambda folder, it=channel: self._fetch(it, folder, tell))  # type: ignore[misc]

    def restore_checkpoints(self) -> None:
        """Bring what an earlier start or job left at the checkpoint location. Raises StorageError."""
        if (checkpoints := self._open_checkpoints()) is not None:
            checkpoints.restore()

    def check_output(self) -> None:
        """Fail before training, not after it, where the output location cannot be written. Raises StorageError."""
        self.store.check_writable(f"{self._spec.output_uri.rstrip('/')}/{self._spec.job_name}/output")

    def start(self, across: Across | None, hosts: Mapping[str, str]) -> None:
        """Start the containers and their exchange; `hosts` has the addresses of containers that are elsewhere."""
        self._open_exchange(across)
        self.streams.start()
        self._containers.start({seat.rank: self._container(seat, hosts) for seat in self.seats})
        self._start_sync()

    def take_up(self) -> None:
        """Go on with the containers that an earlier owner started. Raises AttemptLost.

        Containers that exchange weights, or are streamed to, cannot be taken up: what was under way to them is lost
        with its owner, and to the reader of a pipe that loss looks like the end of the data.
        """
        if any(channel.is_streamed for channel in self._spec.channels):
            raise AttemptLost("The process that streamed the container's data died, perhaps in the middle of a pass")
        if self.place.world_size > 1:
            raise AttemptLost("The process beside the containers died, and their exchange with it")
        self._open_exchange(None)
        self._containers.take_up(self.place.ranks)
        if (checkpoints := self._open_checkpoints()) is not None:
            checkpoints.resume()
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
        self.streams.close()
        if self._exchange is not None:
            self._exchange.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def _fetch(
        self, channel: ChannelSpec, folder: Path, tell: Callable[[str], None], shard_index: int = 0, count: int = 1
    ) -> None:
        part = f", part {shard_index + 1} of {count}" if count > 1 else ""

        def progress(done_bytes: int, total_bytes: int) -> None:
            tell(f"Downloading channel {channel.name}{part}: {done_bytes // MIB} of {total_bytes // MIB} MiB")

        fetch_channel(self.store, channel, folder, progress, shard_index=shard_index, shard_count=count)

    def _open_exchange(self, across: Across | None) -> None:
        arena_mib = self._spec.environment.get(ARENA_VARIABLE)
        self._exchange = ExchangeHub(
            self._root / "exchange",
            SHARED_MEMORY / f"raymaker-{self._site.tag}-{self.name}",
            self.place,
            across=across,
            arena_bytes=int(arena_mib) * MIB if arena_mib else self._site.exchange_arena_bytes,
            timeout_s=self._site.exchange_timeout_s,
            on_metrics=self.metrics.put,
        )
        self._exchange.start()

    def _rank_ended(self, rank: int, status: ExitStatus) -> None:
        if self._checkpoints is not None and (status.signal is not None or status.lost):
            self._checkpoints.note_kill(time.time())
        if self._exchange is not None:
            self._exchange.rank_ended(rank, status.describe())

    def _open_checkpoints(self) -> CheckpointSync | None:
        if self._spec.checkpoint_uri is not None:
            place, spec = self.place, self._spec
            writer = Writer(spec.attempt, spec.start, place.machine_index, place.machine_count, spec.job_name)
            folder = self._root / "checkpoints"
            self._checkpoints = CheckpointSync(self.store, self._spec.checkpoint_uri, folder, writer, self.note)
        return self._checkpoints

    def _start_sync(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.start()

    def _container(self, seat: Seat, hosts: Mapping[str, str]) -> ContainerSpec:
        """Say what to run: `IMAGE train`, the contract's mounts and environment, its share of the instance type."""
        if self._algorithm is None or self._exchange is None:
            raise RuntimeError("the algorithm was not prepared")
        spec = self._spec
        environment = contract.environment(spec, seat, s3_endpoint_url=self._site.store.s3_endpoint_url)
        command = spec.arguments if spec.arguments is not None else ("train",)
        if spec.source is not None:
            environment = {**contract.toolkit_environment(spec, seat), "PYTHONPATH": contract.EXCHANGE, **environment}
            command = (*command, *contract.user_arguments(spec.hyperparameters))
        return ContainerSpec(
            name=f"raymaker-{self._site.tag}-{self.name}" + (f"-{seat.index}" if len(self.seats) > 1 else ""),
            image=self._algorithm.image,
            source_dir=self._algorithm.source_dir,
            command=command,
            entrypoint=spec.entrypoint,
            environment=environment,
            mounts=(*contract.mounts(self.folder(seat), spec), *self._exchange.mounts(seat.index)),
            labels={
                LABEL_KIND: "training",
                LABEL_OWNER: self.name,
                LABEL_HOME: str(self._site.home),
                LABEL_JOB: spec.job_name,
                LABEL_ATTEMPT: spec.label,
                LABEL_RANK: str(seat.rank),
            },
            resources=spec.container_resources,
            network=self._network(hosts),
            hostname=seat.host,
            **self._neighbours(seat, hosts),
        )

    def _network(self, hosts: Mapping[str, str]) -> Network:
        """Say what the containers reach. Raises UnsupportedError where they could not reach those on other machines."""
        if self._spec.network is not Network.OPEN or not hosts or self.runtime.name != "docker":
            return self._spec.network
        if not self._site.host_network:
            raise UnsupportedError(
                "the job's network is on and its instances are on several machines, whose containers do not reach each "
                "other: isolate the network (EnableNetworkIsolation; the exchange works without one), or let such jobs "
                "share their machines' network with RAYMAKER_HOST_NETWORK=true"
            )
        return Network.HOST

    def _neighbours(self, seat: Seat, hosts: Mapping[str, str]) -> dict[str, Any]:
        """Say whom the container finds by name, and which of the machine's GPUs are its own."""
        found: dict[str, Any] = {"gpu_ids": self._gpu_ids(seat)}
        if self.place.world_size > 1 and self._spec.network is Network.OPEN:
            here = tuple(name for name in self.place.hosts if name not in hosts)
            found |= {"group": f"{self._spec.job_name}-{self._spec.label}", "peers": here, "hosts": hosts}
        return found

    def _gpu_ids(self, seat: Seat) -> tuple[str, ...]:
        """Share the GPUs that Ray set aside for this process evenly; all see all where that does not come out even."""
        devices = [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
        share, rest = divmod(len(devices), self.place.containers_per_machine)
        if not self._spec.instance_type.resources.gpus or rest:
            return tuple(devices) if self._spec.instance_type.resources.gpus else ()
        return tuple(devices[seat.index * share : (seat.index + 1) * share])
