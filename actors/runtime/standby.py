"""Containers that wait inside their start, of an image that is likely to be wanted, so that a job need not wait.

A standby's program is a few lines of `sh` that read what to become from standard input: variables to set, and the
program to turn into. Whoever made it holds the other end, so that it ends by itself when its maker does. It has none of
a job's mounts while it waits; they are put into it when it becomes a job's container (`attaching.py`). What labels it
then has stands in a file, since an engine takes no new ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from raymaker.actors.errors import EngineAway, StartError
from raymaker.actors.lease import Lease
from raymaker.actors.mounting import may_mount
from raymaker.actors.runtime.attaching import attach
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER, home_tag
from raymaker.actors.runtime.docker_engine import connect, engine, remove
from raymaker.actors.runtime.docker_networks import network_of
from raymaker.actors.runtime.docker_options import EngineMachine, container_config, host_config
from raymaker.actors.runtime.hosts import names_beside_bridge
from raymaker.actors.runtime.mount_points import make_mount_points
from raymaker.actors.spec import ContainerSpec, Network

logger = logging.getLogger(__name__)

LABEL_STANDBY = "raymaker.standby"
"""The name of the file in which the labels stand that it has as a job's container."""
MOST_HOPELESS = 20
READY_S = 10.0
LOOK_S = 0.01
TIMEOUT_S = 60
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What `sh` can set as a variable."""
KEPT_NAMES = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "LINENO", "OPTIND", "PPID", "SHELLOPTS", "UID", "_"})
"""What some shell does not let be set, or sets itself."""
SCRIPT = """\
raymaker_told=; raymaker_end='
'
while IFS= read -r raymaker_line; do
  [ "$raymaker_line" != "$1" ] || { unset raymaker_line raymaker_end; eval "$raymaker_told"; }
  raymaker_told=$raymaker_told$raymaker_line$raymaker_end
done
exit 125
"""
"""Becomes what it is told once it was told all: a maker that dies in the middle starts nothing."""


class Standbys:
    """The standbys of one machine's process, of the kinds of containers that it started last, at most `count`."""

    def __init__(self, home: Path, count: int) -> None:
        self._home = home
        self._count = count
        self._waiting: list[Standby] = []
        self._last: list[ContainerSpec] = []
        self._hopeless: list[ContainerSpec] = []
        """Of which none could be made, such as of images without a shell."""
        self._lock = threading.Lock()
        self._making = threading.Lock()

    def expect(self, spec: ContainerSpec) -> ContainerSpec | None:
        """Have one wait that can become such a container, once `replenish` is called. Returns what that is like."""
        shape = _shape(spec)
        with self._lock:
            if shape is None or shape in self._hopeless:
                return None
            self._last = [shape, *(each for each in self._last if each != shape)][: self._count]
        return shape

    def start(self, spec: ContainerSpec) -> str | None:
        """Have one that waits become this container. Returns its id, None where none fits, or it came to nothing."""
        shape = self.expect(spec)
        with self._lock:
            found = next((each for each in self._waiting if each.shape == shape), None)
            if found is None:
                return None
            self._waiting.remove(found)
        try:
            found.become(spec)
        except (OSError, DockerException, requests.exceptions.RequestException) as error:
            logger.warning("a container that waited could not become %s: %s", spec.name, error)
            found.close()
            return None
        return found.id

    def replenish(self) -> None:
        """Make those that are missing of the kinds that were started last, and end those of others."""
        if not self._making.acquire(blocking=False):
            return  # whoever is at it looks at the same
        try:
            self._replenish()
        finally:
            self._making.release()

    def close(self) -> None:
        """End all that wait."""
        with self._lock:
            waiting, self._waiting, self._last = self._waiting, [], []
        for standby in waiting:
            standby.close()

    def _replenish(self) -> None:
        with self._lock:
            wanted, waiting = list(self._last), list(self._waiting)
        for standby in waiting:
            if standby.shape not in wanted or not standby.is_waiting():
                self._drop(standby)
        for shape in wanted:
            if all(each.shape != shape for each in self._waiting) and may_mount("docker"):
                made = self._make(shape)
                with self._lock:
                    if made is not None:
                        self._waiting.append(made)
                    else:
                        self._last.remove(shape)
                        self._hopeless = [shape, *self._hopeless[:MOST_HOPELESS]]

    def _drop(self, standby: Standby) -> None:
        with self._lock:
            if standby not in self._waiting:
                return
            self._waiting.remove(standby)
        standby.close()

    def _make(self, shape: ContainerSpec) -> Standby | None:
        try:
            return Standby.make(shape, self._home)
        except (OSError, DockerException, StartError, requests.exceptions.RequestException) as error:
            logger.warning("no container of %s can wait inside its start: %s", shape.image, error)
            return None


class Standby:
    """One container that waits."""

    def __init__(self, api: docker.APIClient, shape: ContainerSpec, home: Path, lease: Lease, token: str) -> None:
        self.shape = shape
        self.id = ""
        self._api = api
        self._home = home
        self._lease = lease
        self._token = token
        self._pid = 0
        self._program: Sequence[str] = ()
        self._command: Sequence[str] = ()
        self._input: Any = None
        self._stream: Any = None
        """The socket below what docker's library calls one."""

    @classmethod
    def make(cls, shape: ContainerSpec, home: Path) -> Standby:
        """Start one, and see it wait. Raises DockerException, StartError, OSError."""
        token = f"standby-{secrets.token_hex(8)}"
        api = connect(TIMEOUT_S)
        lease = Lease.acquire(home, token)
        standby = cls(api, shape, home, lease, token)
        try:
            standby._start()
        except BaseException:
            standby.close()
            raise
        return standby

    def is_waiting(self) -> bool:
        """Tell whether it still waits."""
        with contextlib.suppress(DockerException, requests.exceptions.RequestException):
            return bool(self._api.inspect_container(self.id)["State"]["Running"])
        return False

    def become(self, spec: ContainerSpec) -> None:
        """Let it be the container of `spec`. Raises OSError, DockerException; what became of it is then not known."""
        make_mount_points(spec.mounts)
        namespace = os.open(f"/proc/{self._pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self.id not in Path(f"/proc/{self._pid}/cgroup").read_text():
                raise ProcessLookupError(f"the container {self.id[:12]} has ended while it waited")
            write_labels(self._home, self._token, spec.labels)
            attach(namespace, spec.mounts)
        finally:
            os.close(namespace)
        entrypoint = self._program if spec.entrypoint is None else spec.entrypoint
        told_at = time.time()
        self._tell([*(part for part in entrypoint if part), *(spec.command or self._command)], spec.environment)
        write_labels(self._home, self._token, spec.labels, told_at)
        with contextlib.suppress(APIError):
            self._api.rename(self.id, spec.name)
        self._hang_up()
        self._lease.release()

    def close(self) -> None:
        """End it, and leave nothing of it."""
        with contextlib.suppress(DockerException, requests.exceptions.RequestException):
            if self.id:
                remove(self._api, self.id)
        forget_labels(self._home, self._token)
        self._hang_up()
        self._lease.release()

    def _hang_up(self) -> None:
        """Let go of its input, which ends one that still waits."""
        if self._input is not None:
            self._stream.close()
            self._input.close()
        self._api.close()

    def _start(self) -> None:
        api, shape = self._api, self.shape
        image = api.inspect_image(shape.image)["Config"]  # type: ignore[no-untyped-call]
        self._program, self._command = tuple(image.get("Entrypoint") or ()), tuple(image.get("Cmd") or ())
        spec = dataclasses.replace(
            shape,
            name=f"raymaker-{home_tag(self._home)}-{self._token}",
            entrypoint=("/bin/sh",),
            command=("-c", SCRIPT, "sh", self._token),
            labels={
                LABEL_KIND: "training",
                LABEL_OWNER: self._token,
                LABEL_HOME: str(self._home),
                LABEL_STANDBY: self._token,
            },
        )
        network = network_of(api, spec, self._home)
        machine = EngineMachine.of(api.info())
        host = api.create_host_config(**host_config(spec, network, names_beside_bridge(spec), machine))
        made = api.create_container(host_config=host, stdin_open=True, **container_config(spec, self._home))
        self.id = made["Id"]
        self._input = api.attach_socket(self.id, params={"stdin": 1, "stream": 1})
        self._stream = getattr(self._input, "_sock", self._input)
        api.start(self.id)
        self._pid = int(api.inspect_container(self.id)["State"]["Pid"])
        self._see_it_wait()

    def _see_it_wait(self) -> None:
        """Wait until the program is `sh`. Raises OSError where it ended instead, as in an image without one."""
        deadline = time.monotonic() + READY_S
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children")
        while time.monotonic() < deadline:
            names = [Path(f"/proc/{child}/comm").read_text().strip() for child in children.read_text().split()]
            if names and names[0] != Path(f"/proc/{self._pid}/comm").read_text().strip():
                return
            time.sleep(LOOK_S)
        raise TimeoutError(f"its shell did not begin within {READY_S:.0f} s")

    def _tell(self, program: Sequence[str], environment: Mapping[str, str]) -> None:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        lines += [f"exec {shlex.join(program)} </dev/null", self._token, ""]
        self._stream.sendall("\n".join(lines).encode())
        self._stream.shutdown(socket.SHUT_WR)


def _shape(spec: ContainerSpec) -> ContainerSpec | None:
    """What a standby must be like to become this container; None where none can."""
    has_neighbours = spec.network is Network.HOST or spec.group is not None or spec.peers or spec.hosts
    is_plain = not has_neighbours and not spec.read_only_root
    has_gpus = bool(spec.resources.gpus or spec.gpu_ids)
    can_be_told = all(NAME.fullmatch(name) and name not in KEPT_NAMES for name in spec.environment)
    if spec.image is None or not is_plain or has_gpus or not can_be_told:
        return None
    return dataclasses.replace(spec, name="", command=(), entrypoint=None, environment={}, mounts=(), labels={})


def waiting_containers(home: Path) -> list[tuple[str, float]]:
    """The images of those that wait on this machine, each with when it was made (epoch s); none where no engine is."""
    with contextlib.suppress(EngineAway), engine(TIMEOUT_S) as api:
        found = api.containers(filters={"label": [LABEL_STANDBY, f"{LABEL_HOME}={home}"], "status": "running"})
        waiting = (each for each in found if each["Names"][0].endswith(each["Labels"][LABEL_STANDBY]))
        return [(_name_of_image(api, each["ImageID"]), float(each["Created"])) for each in waiting]
    return []


def _name_of_image(api: docker.APIClient, image_id: str) -> str:
    """How people know an image: by a tag, else by where it came from, else by its id."""
    with contextlib.suppress(NotFound):
        image = api.inspect_image(image_id)  # type: ignore[no-untyped-call]
        return str(next(iter([*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]), image_id))
    return image_id


def effective_labels(home: Path, labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels of a container, and of one that was a standby those that it got since."""
    token = labels.get(LABEL_STANDBY)
    return labels if token is None else {**labels, **_read(home, token).get("labels", {})}


def has_standbys(home: Path) -> bool:
    """Tell whether there may be containers whose labels stand in files."""
    return any((home / "standbys").glob("*.json"))


def begun_at(home: Path, labels: Mapping[str, str], started_at: float | None) -> float | None:
    """When a container's program began (epoch s), which a standby's does when it was told to the end; None if never."""
    token = labels.get(LABEL_STANDBY)
    return started_at if token is None else _read(home, token).get("told_at")


def write_labels(home: Path, token: str, labels: Mapping[str, str], told_at: float | None = None) -> None:
    """Say which labels a standby has from now on, and when it was told all. Raises OSError."""
    place = _place(home, token)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps({"labels": dict(labels), "told_at": told_at}))
    part.replace(place)


def forget_labels(home: Path, token: str) -> None:
    """Remove what was written down of a standby."""
    _place(home, token).unlink(missing_ok=True)


def _read(home: Path, token: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(_place(home, token).read_text())
    except FileNotFoundError:
        return {}
    return found


def _place(home: Path, token: str) -> Path:
    if not re.fullmatch(r"standby-[0-9a-f]+", token):
        raise ValueError(f"{token!r} is no standby")
    return home / "standbys" / f"{token}.json"
