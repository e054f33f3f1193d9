"""What the engine is asked for to run a ContainerSpec, and in words why it refused. Calls nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from docker.types import DeviceRequest, LogConfig, Mount

from raymaker.actors.errors import ImageError, StartError
from raymaker.actors.gpus import chosen
from raymaker.actors.runtime.base import LABEL_GROUP, LABEL_HOME
from raymaker.actors.runtime.mount_points import in_order
from raymaker.actors.spec import ContainerSpec, Network

CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
]
"""What ordinary images need to set up files, to drop to another user, and to run sshd, by which MPI starts processes;
everything else is taken away."""
YIELDING_SHARES = 64
"""The share of CPU time of a container that lets others come first; an ordinary one has 1,024."""
PIDS_LIMIT = 16_384
"""Threads count, and numeric libraries start as many per process as the machine has processors."""
EXEC_FAILURE = re.compile(
    r"\[FATAL tini \(\d+\)\] exec (.*) failed: (.*)|.*\(catatonit:\d+\): failed to exec pid1: (.*)"
)
"""How the engine's init (Docker's, Podman's) says that it could not run the program."""
TMP = {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}  # noqa: S108 - the place that programs expect to be writable
"""What a container with a read-only root gets to write to; numeric libraries compile and load code there."""


CDI_GPU = "nvidia.com/gpu="
"""What a GPU's name begins with where the engine knows devices by the Container Device Interface."""


@dataclass(frozen=True)
class EngineMachine:
    """The machine that an engine hands out, by its own word."""

    cpu_count: int
    cdi_gpus: frozenset[str] = frozenset()
    """The GPUs that it finds by itself, without NVIDIA's hook, from the files of `nvidia-ctk cdi generate`."""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """Read the engine's answer to `info`."""
        names = (device["ID"] for device in info.get("DiscoveredDevices") or () if device["ID"].startswith(CDI_GPU))
        return cls(int(info["NCPU"]), frozenset(name.removeprefix(CDI_GPU) for name in names))


def host_config(spec: ContainerSpec, network: str, hosts: Mapping[str, str], machine: EngineMachine) -> dict[str, Any]:
    """Arguments for docker's `create_host_config`; `hosts` are names that the engine does not make known by itself.

    The engine refuses more CPUs than it has, so none are then asked for.
    """
    limits = spec.resources
    config: dict[str, Any] = {
        "mounts": [Mount(m.target, m.source, type="bind", read_only=m.read_only) for m in in_order(spec.mounts)],
        "network_mode": network,
        "extra_hosts": dict(hosts),
        "init": True,
        "cap_drop": ["ALL"],
        "cap_add": CAPABILITIES,
        "security_opt": ["no-new-privileges"],
        "pids_limit": PIDS_LIMIT,
        "shm_size": spec.shm_bytes,
        "log_config": LogConfig(type=LogConfig.types.JSON),
    }
    if 0 < limits.cpus < machine.cpu_count:
        config["nano_cpus"] = max(int(limits.cpus * 1e9), 10_000_000)
    if spec.yields_cpu:
        config["cpu_shares"] = YIELDING_SHARES
    if limits.memory_bytes:
        config |= {"mem_limit": limits.memory_bytes, "memswap_limit": limits.memory_bytes}
    if limits.gpus or spec.gpu_ids:
        config["device_requests"] = [_gpus(chosen(spec.gpu_ids, limits.gpus), machine)]
    if spec.read_only_root:
        mounted = {mount.target for mount in spec.mounts}
        tmpfs = {place: options for place, options in TMP.items() if place not in mounted}
        config |= {"read_only": True, "tmpfs": tmpfs}
    return config


def container_config(spec: ContainerSpec, home: Path) -> dict[str, Any]:
    """Arguments for docker's `create_container`, without the host's part."""
    config: dict[str, Any] = {
        "image": spec.image,
        "name": spec.name,
        "command": list(spec.command),
        "environment": dict(spec.environment),
        "labels": {**spec.labels, **group_label(spec), LABEL_HOME: str(home)},
        "healthcheck": {"test": ["NONE"]},
    }
    if spec.entrypoint is not None:
        config["entrypoint"] = list(spec.entrypoint) or [""]  # the engine takes an empty list for none given
    if spec.hostname is not None:
        config["hostname"] = spec.hostname
    return config


def group_label(spec: ContainerSpec) -> dict[str, str]:
    """Name the group that shares a network, where the container has one."""
    return {LABEL_GROUP: spec.group} if spec.group is not None and spec.network is Network.OPEN else {}


def start_error(spec: ContainerSpec, explanation: str) -> StartError:
    """Say why the engine did not make or start the container, and what to do."""
    lower = explanation.lower()
    if "no such image" in lower:
        return ImageError(f"the engine has no image {spec.image}: pull it, load it or build it first")
    if "no command specified" in lower:
        return ImageError(f"image {spec.image} has nothing to run: name a program, or give it a CMD or ENTRYPOINT")
    if "bind source path does not exist" in lower:
        return StartError(f"container {spec.name} could not be started: {explanation}; the engine must see that folder")
    if "could not select device driver" in lower or "cdi device" in lower:
        return StartError(
            f"container {spec.name} needs GPUs and the engine cannot hand them out: install the NVIDIA container "
            "toolkit (or make files for the engine with `nvidia-ctk cdi generate`), or choose an instance type without "
            f"GPUs ({explanation})"
        )
    if any(words in lower for words in ("executable file not found", "exec format error", "permission denied")):
        return exec_error(spec, explanation)
    return StartError(f"container {spec.name} could not be started: {explanation}")


def exec_error(spec: ContainerSpec, explanation: str) -> ImageError:
    """Say why the image's program cannot be run, and what to do."""
    program = (*(part for part in spec.entrypoint or () if part), *spec.command, "its program")[0]
    lower = explanation.lower()
    if "exec format error" in lower:
        return ImageError(
            f"image {spec.image} cannot run {program!r} here: it is made for another processor, or the first line of "
            f"the script is no #! line; build the image for this machine ({explanation})"
        )
    if "permission denied" in lower:
        return ImageError(f"{program!r} in image {spec.image} is not executable: chmod +x it ({explanation})")
    return ImageError(
        f"image {spec.image} has no program {program!r} that can run: put an executable of that name on its PATH, give "
        f"the image an ENTRYPOINT, or name the program in the request ({explanation})"
    )


def exec_failure(log_line: str) -> str | None:
    """Return why the program could not be run, where the engine's init says so in this line of the log."""
    match = EXEC_FAILURE.fullmatch(log_line.strip())
    if match is None:
        return None
    return f"{match[1]}: {match[2]}" if match[1] else match[3]


def _gpus(devices: tuple[str, ...], machine: EngineMachine) -> DeviceRequest:
    """Ask for GPUs by the names under which the engine finds them, else for NVIDIA's hook to bring them."""
    if machine.cdi_gpus.issuperset(devices):
        return DeviceRequest(driver="cdi", device_ids=[f"{CDI_GPU}{device}" for device in devices])
    return DeviceRequest(device_ids=list(devices), capabilities=[["gpu"]])
