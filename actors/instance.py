"""One VM-like machine: what it does for one attempt at a job, step by step. A plain class, made an actor elsewhere.

Owns the attempt's folder, its lease and its container. Knows nothing of statuses: `supervisor.py` tells those.
"""

from __future__ import annotations

import collections
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from raymaker.actors import contract
from raymaker.actors.algorithm import Algorithm, prepare_algorithm
from raymaker.actors.artifacts import pack
from raymaker.actors.channels.file import fetch_channel
from raymaker.actors.lease import Lease
from raymaker.actors.runtime.base import (
    LABEL_HOME,
    LABEL_KIND,
    LABEL_OWNER,
    ContainerHandle,
    ContainerRuntime,
    ExitStatus,
    Phase,
)
from raymaker.actors.site import Site
from raymaker.actors.spec import ContainerSpec, TrainingSpec
from raymaker.actors.storage import ObjectStore

LEASE_TIMEOUT_S = 30.0
MIB = 1024 * 1024


class AttemptLost(Exception):
    """The attempt's container was started and is gone: the attempt cannot be taken up, only a new one be made."""


class StopRequested(Exception):
    """The job was asked to stop before its container started."""


class Instance:
    """The machine of one attempt. Enter it to own the attempt: one owner at a time, by the kernel's word.

    Raises LeaseHeld on entry while another live process owns the attempt.
    """

    def __init__(self, spec: TrainingSpec, site: Site, runtime: ContainerRuntime) -> None:
        self._spec = spec
        self._site = site
        self._name = f"training-{spec.job_name}-{spec.attempt}"
        self._root = site.jobs / spec.job_name / str(spec.attempt)
        self._folder = contract.JobFolder(self._root)
        self._store = ObjectStore(site.store)
        self._algorithm: Algorithm | None = None
        self._handle: ContainerHandle | None = None
        self.runtime = runtime

    def __enter__(self) -> Self:
        self._lease = Lease.acquire(self._site.home, self._name, LEASE_TIMEOUT_S)
        self._root.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.release()

    def was_started(self) -> bool:
        """Tell whether an earlier owner of this attempt started its container, even if it died right after."""
        if not self._started_file.exists():
            for handle, _ in self.runtime.owned({LABEL_HOME: str(self._site.home), LABEL_OWNER: self._name}):
                self._remember(handle)
        return self._started_file.exists()

    def prepare_algorithm(self) -> str | None:
        """Make the image or source runnable here. Returns the image's digest, None for the process driver."""
        self._algorithm = prepare_algorithm(
            self.runtime, self._store, self._site, image=self._spec.image, source=self._spec.source
        )
        return self._algorithm.digest

    def fetch_channels(self, tell: Callable[[str], None]) -> None:
        """Lay out /opt/ml and bring every channel's data to it; `tell` is called with progress for people."""
        contract.lay_out(self._folder, self._spec)
        for channel in self._spec.channels:

            def progress(done_bytes: int, total_bytes: int, name: str = channel.name) -> None:
                tell(f"Downloading channel {name}: {done_bytes // MIB} of {total_bytes // MIB} MiB")

            fetch_channel(self._store, channel, self._folder.channel(channel.name), progress)

    def check_output(self) -> None:
        """Fail before training, not after it, where the output location cannot be written. Raises StorageError."""
        self._store.check_writable(self._output_uri(""))

    def start(self) -> ContainerHandle:
        """Start the attempt's container, or take up the one that an earlier owner started. Raises AttemptLost."""
        if self.was_started():
            self._handle = ContainerHandle(**json.loads(self._started_file.read_text()))
            if self.runtime.inspect(self._handle).phase is Phase.MISSING:
                raise AttemptLost(f"container {self._handle.name} of attempt {self._spec.attempt} is gone")
            return self._handle
        self._handle = self.runtime.start(self._container())
        self._remember(self._handle)
        return self._handle

    def started_at(self) -> float:
        """When the container started, in epoch seconds."""
        return self.runtime.inspect(self._running).started_at or self._started_file.stat().st_mtime

    def wait(self, timeout_s: float) -> ExitStatus | None:
        """Wait for the container's end; None where `timeout_s` passed first."""
        return self.runtime.wait(self._running, timeout_s)

    def stop(self) -> None:
        """SIGTERM, grace, SIGKILL."""
        self.runtime.stop(self._running, self._site.stop_grace_s)

    def read_failure(self) -> str | None:
        """What the algorithm wrote to /opt/ml/output/failure, None where it wrote nothing."""
        return contract.read_failure(self._folder)

    def last_log_lines(self, count: int) -> list[str]:
        """The end of the container's log."""
        return [line.text for line in collections.deque(self.runtime.logs(self._running), maxlen=count)]

    def store_model(self) -> str | None:
        """Pack /opt/ml/model to SageMaker's path. Returns its URI."""
        return pack(self._folder.model, self._store, self._output_uri("model"), self._spec.output_compression)

    def store_output(self) -> None:
        """Pack /opt/ml/output/data beside the model, where the algorithm left anything there."""
        if any(self._folder.output_data.iterdir()):
            pack(self._folder.output_data, self._store, self._output_uri("output"), self._spec.output_compression)

    def clean_up(self) -> None:
        """Leave nothing behind. Called once the attempt's end is durable elsewhere."""
        if self._handle is not None:
            self.runtime.remove(self._handle)
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def _running(self) -> ContainerHandle:
        if self._handle is None:
            raise RuntimeError("the attempt's container was not started")
        return self._handle

    @property
    def _started_file(self) -> Path:
        return self._root / "started.json"

    def _remember(self, handle: ContainerHandle) -> None:
        temporary = self._started_file.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(handle)))
        temporary.replace(self._started_file)

    def _output_uri(self, kind: str) -> str:
        """`<S3OutputPath>/<job>/output/<kind>.tar.gz`; uncompressed, the folder `<kind>/`; the folder itself for ''."""
        folder = f"{self._spec.output_uri.rstrip('/')}/{self._spec.job_name}/output"
        if not kind:
            return folder
        return f"{folder}/{kind}.tar.gz" if self._spec.output_compression == "GZIP" else f"{folder}/{kind}"

    def _container(self) -> ContainerSpec:
        """Say what to run: `IMAGE train`, the contract's mounts and environment, the limits of the instance type."""
        if self._algorithm is None:
            raise RuntimeError("the algorithm was not prepared")
        spec = self._spec
        environment = contract.environment(spec, s3_endpoint_url=self._site.store.s3_endpoint_url)
        command = spec.arguments if spec.arguments is not None else ("train",)
        if spec.source is not None:
            environment = {**contract.toolkit_environment(spec), **environment}
            command = (*command, *contract.user_arguments(spec.hyperparameters))
        return ContainerSpec(
            name=f"raymaker-{self._site.tag}-{self._name}",
            image=self._algorithm.image,
            source_dir=self._algorithm.source_dir,
            command=command,
            entrypoint=spec.entrypoint,
            environment=environment,
            mounts=contract.mounts(self._folder, spec),
            labels={
                LABEL_KIND: "training",
                LABEL_OWNER: self._name,
                LABEL_HOME: str(self._site.home),
                "raymaker.job": spec.job_name,
                "raymaker.attempt": str(spec.attempt),
            },
            resources=spec.instance_type.resources,
            network=spec.network,
            hostname="algo-1",
        )
