"""The docker driver: containers by a container engine, Docker's or any that speaks its API.

Keeps no connection open between calls, so it is safe to use from many threads and needs no closing. While the engine
restarts, calls wait for it; what options a container gets is `docker_options.py`'s matter.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, NotFound

from raymaker.actors.errors import ContainerMissing, EngineAway, StartError, UnsupportedError
from raymaker.actors.runtime.base import (
    LABEL_GROUP,
    LABEL_HOME,
    ContainerHandle,
    ContainerState,
    ExitStatus,
    LogLine,
    Phase,
    WaitingContainers,
)
from raymaker.actors.runtime.docker_engine import (
    GOING_S,
    RETRY_S,
    ends_within,
    engine,
    find,
    read_log,
    remove,
    unless,
)
from raymaker.actors.runtime.docker_log import NS_PER_S, parse_time_ns
from raymaker.actors.runtime.docker_networks import joining, network_of, remove_unused
from raymaker.actors.runtime.docker_options import (
    EngineMachine,
    container_config,
    exec_error,
    exec_failure,
    group_label,
    host_config,
    start_error,
)
from raymaker.actors.runtime.hosts import names_beside_bridge
from raymaker.actors.runtime.mount_points import make_mount_points
from raymaker.actors.runtime.standby import (
    LABEL_STANDBY,
    begun_at,
    effective_labels,
    forget_labels,
    has_standbys,
)
from raymaker.actors.runtime.termination import request_end
from raymaker.actors.spec import ContainerSpec

CALL_TIMEOUT_S = 120
ENGINE_AWAY_S = 60.0
"""How long a call bears with an engine that restarts."""
WAIT_STEP_S = 60.0
KILL_WAIT_S = 30.0
SEEN_RUNNING_S = 0.25
"""How long a program must live to count as running, where the engine's processes cannot be seen from here."""
NOT_RUNNABLE_CODES = frozenset({126, 127})
NETWORK_GONE = re.compile(r"\bnetwork \S+ not found")
"""Within what the engine says, with which words around it depends on its version."""

T = TypeVar("T")


class DockerRuntime:
    """The docker driver. `home` labels what it starts."""

    name = "docker"

    def __init__(self, home: Path, standbys: WaitingContainers | None = None) -> None:
        self._home = home
        self._standbys = standbys
        self._machine: EngineMachine | None = None
        self._interrupted: set[str] = set()

    def start(self, spec: ContainerSpec) -> ContainerHandle:
        """Start `spec`, or re-attach to the container of that name. Raises ImageError, UnsupportedError, StartError."""
        if spec.image is None:
            raise UnsupportedError(f"container {spec.name} has no image: build one from its source code first")
        try:
            return self._patiently(lambda api: self._start(api, spec))
        except EngineAway as error:
            raise StartError(f"container {spec.name} could not be started: {error}") from error

    def inspect(self, handle: ContainerHandle) -> ContainerState:
        """Tell where the container is. Raises EngineAway."""
        return self._patiently(lambda api: self._inspect(api, handle))

    def wait(self, handle: ContainerHandle, timeout_s: float | None = None) -> ExitStatus | None:
        """Block until it exits; None where `timeout_s` passes first. Raises ContainerMissing, EngineAway.

        While the engine is away nothing is known of the container, so that waiting goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        away_since: float | None = None
        while True:
            left_s = WAIT_STEP_S if deadline is None else min(WAIT_STEP_S, deadline - time.monotonic())
            try:
                # Each look takes a connection of its own: an engine that goes down ends its containers, but lets nobody
                # in any more, so that such an end is not taken for the program's.
                with engine(CALL_TIMEOUT_S) as api:
                    state = self._inspect(api, handle)
                    away_since = None
                    if state.phase is Phase.RUNNING and left_s > 0:
                        ends_within(api, handle.id, left_s)
                        continue
            except EngineAway:
                self._interrupted.add(handle.id)
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since >= ENGINE_AWAY_S:
                    raise
                if left_s <= 0:
                    return None
                time.sleep(min(RETRY_S, left_s))
                continue
            if state.phase is Phase.MISSING:
                raise ContainerMissing(f"container {handle.name} is gone: it was removed, or never ran")
            return state.exit_status

    def stop(self, handle: ContainerHandle, grace_s: float) -> None:
        """SIGTERM to its processes, then SIGKILL after `grace_s`."""
        state = self.inspect(handle)
        if state.phase is not Phase.RUNNING:
            return
        with contextlib.suppress(ContainerMissing):
            if grace_s > 0:
                if not (_is_here(state.pid, handle.id) and request_end(state.pid or 0)):
                    self._signal(handle, "SIGTERM")
                if self.wait(handle, grace_s) is not None:
                    return
            self._signal(handle, "SIGKILL")
            self.wait(handle, KILL_WAIT_S)

    def remove(self, handle: ContainerHandle) -> None:
        """Kill it if it runs, and leave nothing behind."""
        self._patiently(lambda api: _remove(api, handle.id, self._home))
        self._interrupted.discard(handle.id)

    def logs(self, handle: ContainerHandle, since_ns: int = 0, *, follow: bool = False) -> Iterator[LogLine]:
        """Yield lines later than `since_ns`; with `follow`, go on until the container exits."""
        last_ns, is_first = since_ns, True
        while True:
            ended = not follow or self.inspect(handle).phase is not Phase.RUNNING
            try:
                with engine(CALL_TIMEOUT_S) as api:
                    for line in read_log(api, handle.id, last_ns, follow=not ended):
                        last_ns = line.time_ns
                        yield line
            except NotFound:
                if is_first:
                    raise ContainerMissing(f"container {handle.name} is gone, and its log with it") from None
                return
            except EngineAway:
                ended = False  # the next look waits for it
            if ended:
                return
            is_first = False

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        """List containers that carry all of `labels`. Raises EngineAway at once: whoever asks, asks again."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        with engine(CALL_TIMEOUT_S) as api:
            found = api.containers(all=True, filters={"label": wanted})
            others = api.containers(all=True, filters={"label": [LABEL_STANDBY]}) if has_standbys(self._home) else []
        told = {item["Id"]: (item, effective_labels(self._home, item["Labels"])) for item in (*found, *others)}
        return [
            (ContainerHandle(self.name, item["Names"][0][1:], item["Id"]), known)
            for item, known in told.values()
            if labels.items() <= known.items()
        ]

    def _start(self, api: docker.APIClient, spec: ContainerSpec) -> ContainerHandle:
        """Make the container unless it is there, and start it unless it was.

        It is made before it is looked for: nearly always there is none, and each call takes milliseconds.
        """
        deadline = time.monotonic() + GOING_S
        if self._standbys is not None and find(api, spec.name) is None:
            made = self._standbys.start(spec)
            if made is not None:
                return ContainerHandle(self.name, spec.name, made)
        while (made := self._create(api, spec)) is None:
            container = find(api, spec.name)
            if container is not None and container["State"]["Status"] != "created":
                return ContainerHandle(self.name, spec.name, container["Id"])
            if container is not None:
                made = str(container["Id"])
                break
            if time.monotonic() >= deadline:
                raise StartError(f"container {spec.name} could not be made: an old one of that name does not go away")
            time.sleep(RETRY_S)
        _run(api, spec, made, self._home)
        return ContainerHandle(self.name, spec.name, made)

    def _create(self, api: docker.APIClient, spec: ContainerSpec) -> str | None:
        """Make the container, and return its id; None where the name is taken, by one that goes away or one to keep."""
        if self._machine is None:
            self._machine = EngineMachine.of(api.info())
        try:
            network = network_of(api, spec, self._home)
            make_mount_points(spec.mounts)
            host = api.create_host_config(**host_config(spec, network, names_beside_bridge(spec), self._machine))
            made = api.create_container(
                host_config=host,
                networking_config=joining(api, spec, network),
                **container_config(spec, self._home),
            )
            return str(made["Id"])
        except APIError as error:
            if error.status_code == requests.codes.conflict or find(api, spec.name) is not None:
                return None
            if spec.group is not None:
                remove_unused(api, str(self._home), spec.group)
            raise start_error(spec, str(error.explanation)) from error

    def _inspect(self, api: docker.APIClient, handle: ContainerHandle) -> ContainerState:
        container = find(api, handle.id)
        if container is None or container["State"]["Status"] == "created":
            return ContainerState(Phase.MISSING)
        state, labels = container["State"], container["Config"].get("Labels") or {}
        started_at = begun_at(self._home, labels, _epoch_s(state["StartedAt"]))
        if state["Running"] or state["Status"] == "restarting":
            self._interrupted.discard(handle.id)
            return ContainerState(
                Phase.RUNNING,
                started_at=started_at,
                address=_address(container),
                pid=state["Pid"] or None,
            )
        return ContainerState(
            Phase.EXITED,
            exit_status=self._exit_status(api, handle, state, labels),
            started_at=started_at,
            finished_at=_epoch_s(state["FinishedAt"]),
        )

    def _exit_status(
        self, api: docker.APIClient, handle: ContainerHandle, state: Mapping[str, Any], labels: Mapping[str, str]
    ) -> ExitStatus:
        if begun_at(self._home, labels, 0.0) is None:
            return ExitStatus(int(state["ExitCode"]), reason="its maker died before it was told to begin", lost=True)
        code = int(state["ExitCode"])
        status = ExitStatus.of_code(code, oom_killed=bool(state.get("OOMKilled")))
        if code in NOT_RUNNABLE_CODES and (why := _exec_failure(api, handle.id)) is not None:
            return replace(status, reason=f"the image's program could not be run: {why}")
        if code and handle.id in self._interrupted:
            return replace(status, reason="the container engine restarted meanwhile", lost=True)
        return status

    def _signal(self, handle: ContainerHandle, name: str) -> None:
        def kill(api: docker.APIClient) -> None:
            with unless(requests.codes.not_found, requests.codes.conflict):  # gone, or ended
                api.kill(handle.id, name)

        self._patiently(kill)

    def _patiently(self, call: Callable[[docker.APIClient], T]) -> T:
        """Call the engine; where it does not answer, again for as long as a restart may take. Raises EngineAway."""
        deadline = time.monotonic() + ENGINE_AWAY_S
        while True:
            try:
                with engine(CALL_TIMEOUT_S) as api:
                    return call(api)
            except EngineAway:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(RETRY_S)


def _run(api: docker.APIClient, spec: ContainerSpec, container_id: str, home: Path) -> None:
    """Start a container and see its program run; where that fails nothing of it is left. Raises StartError."""
    try:
        _start_in_network(api, spec, container_id, home)
        _see_program_run(api, spec, container_id)
    except NotFound as error:
        raise StartError(f"container {spec.name} was removed while it started") from error
    except APIError as error:
        _remove(api, container_id, home)
        raise start_error(spec, str(error.explanation)) from error
    except StartError:
        _remove(api, container_id, home)
        raise


def _start_in_network(api: docker.APIClient, spec: ContainerSpec, container_id: str, home: Path) -> None:
    """Start it. Where its group's network went meanwhile, with the last container that ran in it, it is made anew."""
    deadline = time.monotonic() + GOING_S
    while True:
        try:
            api.start(container_id)
            return
        except NotFound as error:
            is_networks = group_label(spec) and NETWORK_GONE.search(str(error.explanation))
            if not is_networks or time.monotonic() >= deadline:
                raise
        network_of(api, spec, home)


def _remove(api: docker.APIClient, container_id: str, home: Path) -> None:
    """Remove a container, and its group's network with the last that is in it."""
    container = find(api, container_id)
    remove(api, container_id)
    labels = (container or {"Config": {}})["Config"].get("Labels") or {}
    if LABEL_STANDBY in labels:
        forget_labels(home, labels[LABEL_STANDBY])
    if LABEL_GROUP in labels:
        remove_unused(api, labels[LABEL_HOME], labels[LABEL_GROUP])


def _see_program_run(api: docker.APIClient, spec: ContainerSpec, container_id: str) -> None:
    """Wait the few milliseconds until init has become the program. Raises ImageError where it could not."""
    deadline = time.monotonic() + SEEN_RUNNING_S
    while time.monotonic() < deadline:
        state = api.inspect_container(container_id)["State"]
        if not state["Running"]:
            why = _exec_failure(api, container_id) if state["ExitCode"] in NOT_RUNNABLE_CODES else None
            if why is not None:
                raise exec_error(spec, why)
            return
        if _has_program(state["Pid"], container_id):
            return
        time.sleep(0.005)


def _has_program(pid: int, container_id: str) -> bool:
    """Tell whether init's child has already become another program than init."""
    if not _is_here(pid, container_id):
        return False
    try:
        process = Path("/proc") / str(pid)
        name = (process / "comm").read_text()
        children = (process / "task" / str(pid) / "children").read_text().split()
        return any(Path(f"/proc/{child}/comm").read_text() != name for child in children)
    except OSError:
        return False


def _is_here(pid: int | None, container_id: str) -> bool:
    """Tell whether this process is the container's: of an engine in another kernel the number means nothing here."""
    try:
        return bool(pid) and container_id in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _exec_failure(api: docker.APIClient, container_id: str) -> str | None:
    """Say why the container's program could not be run at all, where the engine's init said so first."""
    first = next(read_log(api, container_id), None)
    return None if first is None else exec_failure(first.text)


def _epoch_s(stamp: str) -> float | None:
    """Turn the engine's time into epoch seconds; its year 1 means never."""
    return None if not stamp or stamp.startswith("0001") else parse_time_ns(stamp) / NS_PER_S


def _address(container: Mapping[str, Any]) -> str | None:
    networks = container["NetworkSettings"]["Networks"] or {}
    return next((network["IPAddress"] for network in networks.values() if network.get("IPAddress")), None)
