"""The embedded driver: source code run as child processes with the container contract, where no engine answers.

It shows a program its own mounts, processes and, with network NONE, no network; it does not isolate: the program runs
as this account, sees this machine's files, and CPU and memory limits are not enforced. It refuses images.

Each container is a folder, `<home>/containers/<name>`: `container.json` says what runs, `state.json` where it is,
`log` what it said. A shim (`shim.py`) stands beside it; this class only reads what the shim writes, so that any process
may take a container up.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from raymaker.actors.errors import ContainerMissing, StartError, UnsupportedError
from raymaker.actors.gpus import VISIBLE, chosen, own_gpus
from raymaker.actors.runtime.base import LABEL_HOME, ContainerHandle, ContainerState, ExitStatus, LogLine, Phase
from raymaker.actors.runtime.hosts import hosts_file, names_on_machine
from raymaker.actors.runtime.mount_points import in_order, make_mount_points
from raymaker.actors.runtime.termination import request_end, started_ticks
from raymaker.actors.spec import ContainerSpec, Mount, Network

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
SHIM = Path(__file__).with_name("shim.py")
CODE = "/opt/ml/code"
MACHINES_HOSTS = Path("/etc/hosts")
LOCAL = "::1 localhost ip6-localhost ip6-loopback\n"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FOLLOW_STEP_S = 0.1
KILL_WAIT_S = 30.0
LOST = ExitStatus.of_code(137, reason="the machine restarted, or the process beside it was killed", lost=True)
REMEDY = (
    "run raymaker as root or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0), or start a container engine and set RAYMAKER_DRIVER=docker"
)


class ProcessRuntime:
    """The process driver. Keeps nothing in memory; any number of them may look after the same home."""

    name = "process"

    def __init__(self, home: Path) -> None:
        self._home = home
        self._root = home / "containers"

    def start(self, spec: ContainerSpec) -> ContainerHandle:
        """Start `spec`, or re-attach to the container of that name. Raises UnsupportedError, StartError."""
        source = _check(spec)
        folder = self._root / spec.name
        with _locked(folder) as lock:
            if (folder / "state.json").exists():
                return self._handle(folder)
            _warn()
            _empty(folder)  # whoever made it died before the container ran
            try:
                _write_container(folder, self._container(folder, spec, source))
                _launch(folder, lock)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            return self._handle(folder)

    def inspect(self, handle: ContainerHandle) -> ContainerState:
        """Tell where the container is."""
        state = self._state(handle)
        if state is None:
            return ContainerState(Phase.MISSING)
        status = _exit_status(state)
        if status is None and not _lives(state["shim"]):
            state = self._state(handle)  # it may have written the end, and ended, since the first look
            if state is None:
                return ContainerState(Phase.MISSING)
            status = _exit_status(state) or LOST
        running = status is None
        return ContainerState(
            phase=Phase.RUNNING if running else Phase.EXITED,
            exit_status=status,
            started_at=state["started_at"],
            finished_at=state.get("finished_at"),
            address="127.0.0.1" if running else None,
            pid=state["init"]["pid"] if running else None,
        )

    def wait(self, handle: ContainerHandle, timeout_s: float | None = None) -> ExitStatus | None:
        """Block until it exits; None where `timeout_s` passes first. Raises ContainerMissing."""
        state = self._state(handle)
        if state is not None and "code" not in state and not _wait_for_end(state["shim"], timeout_s):
            return None
        seen = self.inspect(handle)
        if seen.phase is Phase.MISSING:
            raise ContainerMissing(f"container {handle.name} is gone: it was removed, or never ran")
        return seen.exit_status

    def stop(self, handle: ContainerHandle, grace_s: float) -> None:
        """SIGTERM to its processes, then SIGKILL after `grace_s`."""
        if (state := self._state(handle)) is None or _exit_status(state) is not None:
            return
        if grace_s > 0 and _lives(state["init"]):
            request_end(state["init"]["pid"])
            if _wait_for_end(state["shim"], grace_s):
                return
        _kill(state["init"])
        _wait_for_end(state["shim"], KILL_WAIT_S)

    def remove(self, handle: ContainerHandle) -> None:
        """Kill it if it runs, and leave nothing behind."""
        folder = self._root / handle.name
        if self._id(folder) != handle.id:
            return
        with _locked(folder):
            if self._id(folder) not in {handle.id, None}:
                return
            if (state := self._state(handle)) is not None:
                self.stop(handle, 0)
                _kill(state["shim"])
            _empty(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def logs(self, handle: ContainerHandle, since_ns: int = 0, *, follow: bool = False) -> Iterator[LogLine]:
        """Yield lines later than `since_ns`; with `follow`, go on until the container exits."""
        if (file := self._open_log(handle)) is None:
            raise ContainerMissing(f"container {handle.name} is gone, and its log with it")
        with file:
            rest, ended = b"", not follow
            while True:
                while chunk := file.read(64 * 1024):
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from (line for line in map(_parse_line, lines) if line and line.time_ns > since_ns)
                if ended:
                    return
                try:
                    ended = self.wait(handle, FOLLOW_STEP_S) is not None
                except ContainerMissing:
                    ended = True

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        """List containers that carry all of `labels`."""
        found = []
        for path in sorted(self._root.glob("*/container.json")):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                container = json.loads(path.read_text())
                if labels.items() <= container["labels"].items():
                    handle = ContainerHandle(self.name, path.parent.name, container["id"])
                    found.append((handle, container["labels"]))
        return found

    def _open_log(self, handle: ContainerHandle) -> BinaryIO | None:
        with contextlib.suppress(FileNotFoundError):
            if self._state(handle) is not None:
                return (self._root / handle.name / "log").open("rb")
        return None

    def _handle(self, folder: Path) -> ContainerHandle:
        return ContainerHandle(self.name, folder.name, str(self._id(folder)))

    def _id(self, folder: Path) -> str | None:
        try:
            return str(json.loads((folder / "container.json").read_text())["id"])
        except FileNotFoundError:
            return None

    def _state(self, handle: ContainerHandle) -> dict[str, Any] | None:
        """What the shim wrote last; None where the container is gone, is another by now, or never ran."""
        folder = self._root / handle.name
        try:
            state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        except FileNotFoundError:
            return None
        return state if self._id(folder) == handle.id else None

    def _container(self, folder: Path, spec: ContainerSpec, source: Path) -> dict[str, Any]:
        """All that the shim needs to know."""
        home = folder / "home"  # not the account's own, where credentials may lie
        home.mkdir()
        (folder / "root").mkdir()
        path = spec.environment.get("PATH") or f"{Path(sys.executable).parent}:{os.environ.get('PATH', DEFAULT_PATH)}"
        environment = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            **_visible_gpus(spec),
            **spec.environment,
            "PATH": f"{source / 'bin'}:{path}",
        }
        mounts = in_order((*_own_mounts(folder, spec, source), *spec.mounts))
        make_mount_points(mounts)
        return {
            "id": uuid.uuid4().hex,
            "labels": {**spec.labels, LABEL_HOME: str(self._home)},
            "argv": [*(spec.entrypoint or ()), *spec.command],
            "environment": environment,
            "mounts": [asdict(mount) for mount in mounts],
            "read_only_root": spec.read_only_root,
            "yields_cpu": spec.yields_cpu,
            "network": spec.network.value,
            "hostname": spec.hostname,
            "shm_bytes": spec.shm_bytes,
        }


def _check(spec: ContainerSpec) -> Path:
    """Refuse what this driver cannot do, in words that name the remedy. Returns the folder of the source code."""
    if spec.image is not None:
        raise UnsupportedError(
            f"image {spec.image} cannot run on this machine, where no container engine answers: start one (Docker, "
            "Podman) and set RAYMAKER_DRIVER=docker, or give source code (AlgorithmSource) instead of an image"
        )
    if spec.source_dir is None or not Path(spec.source_dir).is_dir():
        raise StartError(f"container {spec.name} has no source code on this machine (source_dir {spec.source_dir})")
    if not NAME.fullmatch(spec.name):
        raise StartError(f"{spec.name!r} cannot name a container: use letters, digits, dots, dashes and underscores")
    if not spec.entrypoint and not spec.command:
        raise StartError(f"container {spec.name} has no command: name the program that it runs")
    if spec.resources.gpus and not (spec.gpu_ids or own_gpus()):
        raise UnsupportedError(
            f"container {spec.name} asks for GPUs, and none are set aside for it on this machine "
            f"({VISIBLE} is not set): choose an instance type without GPUs"
        )
    return Path(spec.source_dir)


@functools.cache
def _warn() -> None:
    """Say plainly, once, what this driver does not do."""
    logger.warning(
        "the process driver does not isolate: programs run as this account and see this machine's files, and limits of "
        "CPU and memory are not enforced; start a container engine where that is not wanted"
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; the folder is made where it is missing, and is still there once the lock is held."""
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), folder.stat()):
                    yield descriptor
                    return
        finally:
            os.close(descriptor)


def _empty(folder: Path) -> None:
    """Remove all that is in it; what names the container goes last, so that a removal cut short is found again."""
    for entry in sorted(folder.iterdir(), key=lambda path: path.name == "container.json"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _visible_gpus(spec: ContainerSpec) -> dict[str, str]:
    """Name the container's own GPUs, in the order of the bus as Ray numbers them; one that asks for none sees none."""
    if not spec.gpu_ids and not spec.resources.gpus:
        return {VISIBLE: ""}
    return {VISIBLE: ",".join(chosen(spec.gpu_ids, spec.resources.gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _own_mounts(folder: Path, spec: ContainerSpec, source: Path) -> list[Mount]:
    """A private copy of the code, since it may write beside itself; and a hosts file that knows the right names.

    With a read-only root /tmp is another folder than the machine's, so what may lie there is mounted as well.
    """
    mounts = []
    if spec.read_only_root:
        mounts += [Mount(str(source), str(source), read_only=True), Mount(str(folder / "home"), str(folder / "home"))]
    if (source / "code").is_dir():
        shutil.copytree(source / "code", folder / "code", symlinks=True)
        mounts += [Mount(str(folder / "code"), place) for place in (CODE, str(source / "code"))]
    names, is_alone = names_on_machine(spec), spec.network is Network.NONE
    if names or is_alone:
        hosts = folder / "hosts"
        hosts.write_text(hosts_file(names, LOCAL if is_alone else MACHINES_HOSTS.read_text()))
        mounts.append(Mount(str(hosts), "/etc/hosts"))
    return mounts


def _write_container(folder: Path, container: dict[str, Any]) -> None:
    part = folder / "container.part"
    part.touch(mode=0o600)  # the environment may hold secrets
    part.write_text(json.dumps(container))
    part.replace(folder / "container.json")


def _launch(folder: Path, lock: int) -> None:
    """Start the shim, and wait for it to say that the program runs. Raises StartError."""
    said, say = os.pipe()
    with os.fdopen(said, "rb") as answer, (folder / "shim.err").open("wb") as trouble:
        try:
            subprocess.run(
                [sys.executable, "-I", "-S", str(SHIM), str(folder), str(lock), str(say)],
                stdin=subprocess.DEVNULL,
                stdout=trouble,
                stderr=trouble,
                pass_fds=(lock, say),
                env={"PATH": DEFAULT_PATH},
                cwd="/",
                check=False,
            )
        finally:
            os.close(say)
        text = answer.read()
    if not text:
        said_last = (folder / "shim.err").read_text(errors="replace").strip()
        raise StartError(f"container {folder.name} could not be started: {said_last or 'its shim was killed'}")
    if (refusal := json.loads(text)) and refusal["unsupported"]:
        raise UnsupportedError(f"the process driver cannot run here: {refusal['message']}; {REMEDY}")
    if refusal:
        raise StartError(f"container {folder.name} could not be started: {refusal['message']}")


def _exit_status(state: Mapping[str, Any]) -> ExitStatus | None:
    return ExitStatus.of_code(state["code"]) if "code" in state else None


def _parse_line(raw: bytes) -> LogLine | None:
    """Read one line; None for what was overwritten while the disk was full."""
    stamp, _, text = raw.partition(b" ")
    return LogLine(int(stamp), text.decode(errors="replace")) if stamp.isdigit() else None


def _lives(process: Mapping[str, int]) -> bool:
    return started_ticks(process["pid"]) == process["ticks"]


def _wait_for_end(process: Mapping[str, int], timeout_s: float | None) -> bool:
    """Wait for a process that is nobody's child here; False where `timeout_s` passes first."""
    with _opened(process) as descriptor:
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))


def _kill(process: Mapping[str, int]) -> None:
    """End a process, and never another that has its id by now. Returns when it is gone."""
    with _opened(process) as descriptor:
        if descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    _wait_for_end(process, KILL_WAIT_S)


@contextlib.contextmanager
def _opened(process: Mapping[str, int]) -> Iterator[int | None]:
    """Open a process so that no other can take its place; None where it has ended."""
    try:
        descriptor = os.pidfd_open(process["pid"])
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor if _lives(process) else None
    finally:
        os.close(descriptor)
