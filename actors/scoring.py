"""A scoring container: started, waited for until it answers /ping, watched, stopped. Used by hosting and by evaluation.

Owns one container at a time and its log. Who invokes it, and what happens when it dies, is its owner's matter.
"""

from __future__ import annotations

import collections
import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from raymaker.actors.algorithm import Algorithm
from raymaker.actors.artifacts import unpack
from raymaker.actors.checkpoints.stored import fetch_checkpoint
from raymaker.actors.errors import ContainerMissing, ScoringError, WorkError
from raymaker.actors.runtime.base import ContainerHandle, ContainerRuntime, LogLine, Phase
from raymaker.actors.spec import ContainerSpec, Mount, ScoringSpec
from raymaker.actors.storage import ObjectStore

logger = logging.getLogger(__name__)

MODEL_PATH = "/opt/ml/model"
MODELS_PATH = "/opt/ml/models"
"""Where a multi-model container finds its models."""
ADDITIONAL_PATH = "/opt/ml/additional-model-data-sources"
"""Where a container finds more models beside its own, each in a folder of its channel's name."""
PORT = 8080
PING_TIMEOUT_S = 2.0
STOP_GRACE_S = 30.0
LONGEST_PAUSE_S = 0.5
TAIL_COUNT = 20
FLUSH_S = 0.2
BATCH_COUNT = 1000

Address = tuple[str, int]
OnLog = Callable[[Sequence[LogLine]], None]


def fetch_model(store: ObjectStore, spec: ScoringSpec, folder: Path) -> None:
    """Unpack the model to `folder`, and additional ones beside that. Nothing to do where it lies in the image.

    Of many models none is fetched before it is asked for. Raises StorageError, ArchiveError.
    """
    for channel, uri in spec.additional_models.items():
        unpack(store, uri, _additional(folder) / channel)
    if spec.multi_model:
        folder.mkdir(parents=True, exist_ok=True)
    elif spec.model_uri is not None and spec.checkpoint is not None:
        fetch_checkpoint(store, spec.model_uri, spec.checkpoint, folder)
    elif spec.model_uri is not None:
        unpack(store, spec.model_uri, folder)


def _additional(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-additional")


def ping(address: Address) -> str | None:
    """Ask `GET /ping`. Returns None where it answers 200, else in words what came instead."""
    connection = http.client.HTTPConnection(*address, timeout=PING_TIMEOUT_S)
    try:
        connection.request("GET", "/ping")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or repr(error)
    finally:
        connection.close()
    return None if status == http.client.OK else f"status {status}"


class ScoringContainer:
    """One scoring container, which may be started again after it has ended. `stop` and `kill` may come from any thread.

    `folder` holds the unpacked model. `labels` name the owner, so that nothing is left behind when the owner dies.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        algorithm: Algorithm,
        spec: ScoringSpec,
        *,
        name: str,
        folder: Path,
        labels: Mapping[str, str],
        on_log: OnLog,
        ask: Callable[[Address], str | None] = ping,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime = runtime
        self._algorithm = algorithm
        self._spec = spec
        self._name = name
        self._folder = folder
        self._labels = labels
        self._on_log = on_log
        self._ask = ask
        self._clock = clock
        self._stopping = threading.Event()
        self._handle: ContainerHandle | None = None
        self._log: _LogPump | None = None

    def start(self) -> Address:
        """Start the container and return where it answers, once it does. Raises StartError, ScoringError.

        Where it does not become healthy nothing of it is left, and the error holds the end of its log.
        """
        self.remove()
        port = PORT if self._runtime.name == "docker" else _free_port()
        self._handle = self._runtime.start(self._container(port))
        self._log = _LogPump(self._runtime, self._handle, self._on_log)
        try:
            self._check_not_stopped()  # after the handle is there: whoever stopped it before could not end it
            return self._wait_until_healthy(self._handle, port)
        except BaseException:
            self.remove()
            raise

    def wait(self) -> str:
        """Block until the container has ended. Returns in words how, with the end of its log."""
        return self.wait_for(None) or "it ended"

    def wait_for(self, timeout_s: float | None) -> str | None:
        """Wait for its end as `wait` does; None where `timeout_s` passes first."""
        if self._handle is None:
            raise RuntimeError("the container was not started")
        try:
            status = self._runtime.wait(self._handle, timeout_s)
        except ContainerMissing:
            return f"the container was removed from outside.{self._said_last()}"
        return f"{status.describe()}.{self._said_last()}" if status else None

    def kill(self) -> None:
        """End the container at once, as an owner does that has lost patience with it. It may be started again."""
        self._end(0)

    def rest(self) -> None:
        """SIGTERM, 30 s, SIGKILL; it may be started again."""
        self._end(STOP_GRACE_S)

    def stop(self) -> None:
        """SIGTERM, 30 s, SIGKILL; for good: a start that is under way fails, and so does any later one."""
        self._stopping.set()
        self._end(STOP_GRACE_S)

    def remove(self) -> None:
        """Leave nothing behind. What it said last is delivered first."""
        if self._handle is not None:
            self._runtime.stop(self._handle, 0)
            if self._log is not None:
                self._log.finish()
            self._runtime.remove(self._handle)
        self._handle = self._log = None

    def _end(self, grace_s: float) -> None:
        if (handle := self._handle) is not None:
            self._runtime.stop(handle, grace_s)

    def _container(self, port: int) -> ContainerSpec:
        spec = self._spec
        environment = dict(spec.environment)
        if port != PORT:
            environment["SAGEMAKER_BIND_TO_PORT"] = str(port)
        if spec.multi_model:
            environment["SAGEMAKER_MULTI_MODEL"] = "true"
        target = MODELS_PATH if spec.multi_model else MODEL_PATH
        mounts = [Mount(str(self._folder), target, read_only=True)] if spec.model_uri is not None else []
        if spec.additional_models:
            mounts.append(Mount(str(_additional(self._folder)), ADDITIONAL_PATH, read_only=True))
        return ContainerSpec(
            name=self._name,
            command=("serve",),
            image=self._algorithm.image,
            source_dir=self._algorithm.source_dir,
            entrypoint=spec.entrypoint,
            environment=environment,
            mounts=tuple(mounts),
            labels=self._labels,
            resources=spec.resources,
            network=spec.network,
            yields_cpu=spec.yields_cpu,
        )

    def _wait_until_healthy(self, handle: ContainerHandle, port: int) -> Address:
        """Ask /ping again and again. Waiting for its end is the pause between, so that its death is seen at once."""
        deadline = self._clock() + self._spec.startup_timeout_s
        pause_s = 0.02
        while True:
            state = self._runtime.inspect(handle)
            if state.phase is Phase.RUNNING and state.address is not None:
                address = (state.address, port)
                trouble = self._ask(address)
                if trouble is None:
                    return address
            else:
                trouble = "the container has no address"
            status = self._runtime.wait(handle, pause_s)
            self._check_not_stopped()
            if status is not None:
                raise ScoringError(
                    f"the scoring container ended before it answered GET /ping: {status.describe()}.{self._said_last()}"
                )
            if self._clock() >= deadline:
                raise ScoringError(
                    f"the scoring container did not answer GET /ping on port {port} with status 200 within "
                    f"{self._spec.startup_timeout_s:g} s (last try: {trouble}). Where it needs longer, raise "
                    f"ContainerStartupHealthCheckTimeoutInSeconds.{self._said_last()}"
                )
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    def _check_not_stopped(self) -> None:
        if self._stopping.is_set():
            raise ScoringError("the scoring container was stopped while it started")

    def _said_last(self) -> str:
        tail = self._log.tail() if self._log else []
        return " It said last:\n" + "\n".join(tail) if tail else " It said nothing."


class _LogPump:
    """Carries one container's log lines to a callable, in order, and remembers the last ones."""

    def __init__(self, runtime: ContainerRuntime, handle: ContainerHandle, on_log: OnLog) -> None:
        self._runtime = runtime
        self._handle = handle
        self._on_log = on_log
        self._pending: list[LogLine] = []
        self._last: collections.deque[str] = collections.deque(maxlen=TAIL_COUNT)
        self._arrived = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="scoring-log-reader", daemon=True)
        self._sender = threading.Thread(target=self._send_all, name="scoring-log-sender", daemon=True)
        self._reader.start()
        self._sender.start()

    def tail(self) -> list[str]:
        """Return the last lines; those of a container that has just ended are waited for shortly."""
        self._reader.join(timeout=1.0)
        with self._lock:
            return list(self._last)

    def finish(self) -> None:
        """Deliver what is left. Does not wait for a receiver that takes long: the threads end when it does."""
        self._reader.join(timeout=5.0)
        self._over.set()
        self._arrived.set()
        self._sender.join(timeout=5.0)

    def _read(self) -> None:
        try:
            for line in self._runtime.logs(self._handle, follow=True):
                while len(self._pending) >= BATCH_COUNT * 10 and not self._over.is_set():
                    self._over.wait(FLUSH_S)  # the log stays where it is until its receiver is back
                with self._lock:
                    self._last.append(line.text)
                    self._pending.append(line)
                self._arrived.set()
        except WorkError as error:
            logger.warning("following the log of %s ended early: %s", self._handle.name, error)

    def _send_all(self) -> None:
        """Send what came, a moment after the first line of it; a container that says nothing costs nothing."""
        while not self._over.is_set():
            self._arrived.wait()
            self._over.wait(FLUSH_S)
            self._arrived.clear()
            self._send()
        self._send()

    def _send(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, []
        for start in range(0, len(batch), BATCH_COUNT):
            self._on_log(batch[start : start + BATCH_COUNT])


def _free_port() -> int:
    """Pick a port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
