"""Containers by a container engine: Docker, or any engine that speaks its API."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig, Mount

from raymaker.actors.errors import ContainerMissing, ImageError, StartError
from raymaker.actors.runtime.base import (
    LABEL_HOME,
    ContainerHandle,
    ContainerState,
    ExitStatus,
    LogLine,
    Phase,
)
from raymaker.actors.spec import ContainerSpec, Network

CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETPCAP", "SETUID"]
"""What ordinary images need to set up files and drop to another user; everything else is taken away."""
PIDS_LIMIT = 4096
ENGINE_AWAY_S = 60.0
"""How long a call bears with an engine that restarts."""
WAIT_STEP_S = 0.5
LINE_LIMIT_BYTES = 256 * 1024
NETWORK_NAMES = {Network.INTERNAL: "raymaker-internal", Network.OPEN: "raymaker-open"}
SIGNAL_BASE = 128
NOT_RUNNABLE_CODES = frozenset({126, 127})
INIT_ENVIRONMENT = {"TINI_KILL_PROCESS_GROUP": "1"}
"""The engine's init hands signals to the whole process group, so that SIGTERM reaches a script behind `sh -c` too."""

T = TypeVar("T")


class DockerRuntime:
    """The docker driver. Safe to use from many threads; `home` labels what it starts."""

    name = "docker"

    def __init__(self, home: Path) -> None:
        self._home = home
        self._client = docker.from_env(timeout=120)
        self._network_lock = threading.Lock()

    def close(self) -> None:
        """Close the connections to the engine."""
        self._client.close()

    def start(self, spec: ContainerSpec) -> ContainerHandle:
        """Start `spec`, or re-attach to the container of that name. Raises ImageError, StartError."""
        if spec.image is None:
            raise StartError(f"container {spec.name} has no image: build one from its source code first")
        container = self._find(spec.name) or self._create(spec)
        if container.status == "created":
            self._start(container, spec)
        return ContainerHandle(self.name, spec.name, str(container.id))

    def inspect(self, handle: ContainerHandle) -> ContainerState:
        """Tell where the container is."""
        try:
            attributes = self._patiently(lambda: self._client.api.inspect_container(handle.id))
        except NotFound:
            return ContainerState(Phase.MISSING)
        state = attributes["State"]
        running = state["Running"] or state["Status"] in {"created", "restarting"}
        code = state["ExitCode"]
        reason = self._exec_failure(handle) if not running and code in NOT_RUNNABLE_CODES else None
        return ContainerState(
            phase=Phase.RUNNING if running else Phase.EXITED,
            exit_status=None if running else _exit_status(state, reason),
            started_at=_epoch_s(state["StartedAt"]),
            finished_at=None if running else _epoch_s(state["FinishedAt"]),
            address=_address(attributes),
            pid=state["Pid"] or None,
        )

    def wait(self, handle: ContainerHandle, timeout_s: float | None = None) -> ExitStatus | None:
        """Block until it exits; None where `timeout_s` passes first. Raises ContainerMissing."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = WAIT_STEP_S * 20 if deadline is None else deadline - time.monotonic()
            if self._ended_within(handle, max(0.01, min(left_s, WAIT_STEP_S * 20))):
                state = self.inspect(handle)
                if state.phase is Phase.MISSING:
                    raise ContainerMissing(f"container {handle.name} was removed while it was waited for")
                if state.exit_status is not None:
                    return state.exit_status
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def stop(self, handle: ContainerHandle, grace_s: float) -> None:
        """SIGTERM to its processes, then SIGKILL after `grace_s`."""
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 30.0)):
            self._signal(handle, number)
            with contextlib.suppress(ContainerMissing):
                if self.wait(handle, wait_s) is None:
                    continue
            return

    def remove(self, handle: ContainerHandle) -> None:
        """Kill it if it runs, and leave nothing behind."""
        with contextlib.suppress(NotFound):
            self._patiently(lambda: self._remove(handle))

    def logs(self, handle: ContainerHandle, since_ns: int = 0, *, follow: bool = False) -> Iterator[LogLine]:
        """Yield lines later than `since_ns`; with `follow`, go on until the container exits."""
        last_ns = since_ns
        while True:
            try:
                for line in self._read_log(handle, last_ns, follow=follow):
                    last_ns = line.time_ns
                    yield line
            except requests.RequestException:  # the engine went away; what came until now is not lost
                time.sleep(WAIT_STEP_S)
            if not follow or self.inspect(handle).phase is not Phase.RUNNING:
                break
        if follow:  # what it said between the last read and its end
            yield from self._read_log(handle, last_ns, follow=False)

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        """List containers that carry all of `labels`."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        found = self._patiently(lambda: self._client.api.containers(all=True, filters={"label": wanted}))
        return [
            (ContainerHandle(self.name, item["Names"][0].lstrip("/"), item["Id"]), item["Labels"]) for item in found
        ]

    def _find(self, name: str) -> Container | None:
        try:
            return self._patiently(lambda: self._client.containers.get(name))
        except NotFound:
            return None

    def _create(self, spec: ContainerSpec) -> Container:
        try:
            return self._client.containers.create(**self._options(spec))
        except ImageNotFound as error:
            raise ImageError(f"image {spec.image} is not in the engine: pull it or load it first") from error
        except APIError as error:
            if error.status_code == requests.codes.conflict and (container := self._find(spec.name)) is not None:
                return container
            raise StartError(f"container {spec.name} could not be created: {error.explanation}") from error

    def _start(self, container: Container, spec: ContainerSpec) -> None:
        try:
            container.start()
        except APIError as error:
            container.remove(force=True)
            raise _start_error(spec, str(error.explanation)) from error

    def _options(self, spec: ContainerSpec) -> dict[str, Any]:
        limits = spec.resources
        options: dict[str, Any] = {
            "name": spec.name,
            "image": spec.image,
            "command": list(spec.command),
            "environment": {**spec.environment, **INIT_ENVIRONMENT},
            "labels": {**spec.labels, LABEL_HOME: str(self._home)},
            "mounts": [Mount(m.target, m.source, type="bind", read_only=m.read_only) for m in spec.mounts],
            "network": self._network(spec.network),
            "init": True,
            "cap_drop": ["ALL"],
            "cap_add": CAPABILITIES,
            "security_opt": ["no-new-privileges"],
            "pids_limit": PIDS_LIMIT,
            "shm_size": spec.shm_bytes,
            "nano_cpus": int(min(limits.cpus, os.cpu_count() or 1) * 1e9),
            "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "512m"}),
        }
        if spec.entrypoint is not None:
            options["entrypoint"] = list(spec.entrypoint)
        if spec.hostname is not None:
            options["hostname"] = spec.hostname
        if limits.memory_bytes:
            options |= {"mem_limit": limits.memory_bytes, "memswap_limit": limits.memory_bytes}
        if limits.gpus:
            options["device_requests"] = [DeviceRequest(count=int(limits.gpus), capabilities=[["gpu"]])]
        return options

    def _network(self, network: Network) -> str:
        """Return the network's name in the engine, made where it is missing."""
        if network is Network.NONE:
            return "none"
        name = NETWORK_NAMES[network]
        with self._network_lock:
            if not self._client.networks.list(names=[f"^{name}$"]):
                try:
                    self._client.networks.create(
                        name, driver="bridge", internal=network is Network.INTERNAL, check_duplicate=True
                    )
                except APIError as error:
                    if error.status_code != requests.codes.conflict:
                        raise StartError(f"network {name} could not be made: {error.explanation}") from error
        return name

    def _ended_within(self, handle: ContainerHandle, timeout_s: float) -> bool:
        """Ask the engine to answer when the container has ended; False where it did not in time."""
        try:
            self._client.api.wait(handle.id, timeout=timeout_s)  # type: ignore[arg-type] # floats go through to requests
        except NotFound as error:
            raise ContainerMissing(f"container {handle.name} is gone") from error
        except requests.exceptions.ReadTimeout:
            return False
        except requests.exceptions.ConnectionError as error:
            if "Read timed out" in str(error):
                return False
            self._patiently(self._client.ping)
            return False
        return True

    def _exec_failure(self, handle: ContainerHandle) -> str | None:
        """Say why the container's program could not be run at all, where the engine's init said so."""
        for line in self.logs(handle):
            if match := re.fullmatch(r"\[FATAL tini \(\d+\)\] exec (.*) failed: (.*)", line.text):
                return f"the image has no runnable program {match[1]!r} on its PATH: {match[2]}"
        return None

    def _signal(self, handle: ContainerHandle, number: signal.Signals) -> None:
        try:
            self._patiently(lambda: self._client.api.kill(handle.id, number.value))
        except NotFound:
            return
        except APIError as error:
            if error.status_code != requests.codes.conflict:  # conflict: it is not running any more
                raise

    def _remove(self, handle: ContainerHandle) -> None:
        try:
            self._client.api.remove_container(handle.id, v=True, force=True)
        except APIError as error:
            if error.status_code != requests.codes.conflict:  # conflict: somebody else is removing it
                raise

    def _read_log(self, handle: ContainerHandle, since_ns: int, *, follow: bool) -> Iterator[LogLine]:
        since = since_ns / 1e9 if since_ns else None
        try:
            stream = self._client.api.logs(
                handle.id, stdout=True, stderr=True, stream=True, follow=follow, timestamps=True, since=since
            )
        except NotFound:
            return
        yield from parse_log(stream, since_ns)

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call the engine; where it does not answer at all, again for as long as a restart may take."""
        deadline = time.monotonic() + ENGINE_AWAY_S
        while True:
            try:
                return call()
            except requests.exceptions.ConnectionError as error:
                if time.monotonic() >= deadline:
                    raise StartError(f"the container engine has not answered for {ENGINE_AWAY_S:.0f} s") from error
                time.sleep(WAIT_STEP_S)


def engine_answers(timeout_s: float = 2.0) -> bool:
    """Tell whether a container engine answers on this machine."""
    try:
        with contextlib.closing(docker.from_env(timeout=math.ceil(timeout_s))) as client:
            return bool(client.ping())
    except (DockerException, requests.RequestException):
        return False


def parse_log(chunks: Iterator[bytes], since_ns: int) -> Iterator[LogLine]:
    """Turn the engine's `<RFC 3339 time> <text>` lines into LogLines later than `since_ns`."""
    pending, last_ns = b"", since_ns
    for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for raw in lines:
            if (line := _parse_line(raw, since_ns, last_ns)) is not None:
                last_ns = line.time_ns
                yield line
    if pending and (line := _parse_line(pending, since_ns, last_ns)) is not None:
        yield line


def _parse_line(raw: bytes, since_ns: int, last_ns: int) -> LogLine | None:
    stamp, _, text = raw.partition(b" ")
    match = re.fullmatch(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)", stamp)
    if match is None:  # the rest of a line that the engine split: it has no time of its own
        return LogLine(last_ns + 1, raw[:LINE_LIMIT_BYTES].decode(errors="replace"))
    whole_s = int(datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC).timestamp())
    time_ns = whole_s * 1_000_000_000 + int((match[2] or b"0").ljust(9, b"0"))
    if time_ns <= since_ns:
        return None
    return LogLine(max(time_ns, last_ns + 1), text[:LINE_LIMIT_BYTES].rstrip(b"\r").decode(errors="replace"))


def _exit_status(state: Mapping[str, Any], reason: str | None) -> ExitStatus:
    code = int(state["ExitCode"])
    number = code - SIGNAL_BASE if SIGNAL_BASE < code < SIGNAL_BASE + signal.NSIG else None
    return ExitStatus(code, number, oom_killed=bool(state.get("OOMKilled")), reason=reason)


def _epoch_s(stamp: str) -> float | None:
    """Turn the engine's time into epoch seconds; its year 1 means never."""
    if not stamp or stamp.startswith("0001"):
        return None
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", stamp).replace("Z", "+00:00")).timestamp()


def _address(attributes: Mapping[str, Any]) -> str | None:
    networks = attributes["NetworkSettings"]["Networks"] or {}
    return next((network["IPAddress"] for network in networks.values() if network.get("IPAddress")), None)


def _start_error(spec: ContainerSpec, explanation: str) -> StartError:
    program = (spec.entrypoint or spec.command or ("",))[0]
    if "executable file not found" in explanation or "no such file or directory" in explanation:
        return ImageError(
            f"image {spec.image} has no program {program!r} to run: put an executable of that name on its PATH, "
            f"or give it an ENTRYPOINT ({explanation})"
        )
    if "exec format error" in explanation:
        return ImageError(
            f"image {spec.image} is not for this machine's processor, or {program!r} lacks its #! line ({explanation})"
        )
    if "permission denied" in explanation:
        return ImageError(f"{program!r} in image {spec.image} is not executable: chmod +x it ({explanation})")
    return StartError(f"container {spec.name} could not be started: {explanation}")
