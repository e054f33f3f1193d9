"""Which driver runs containers on this machine."""

from __future__ import annotations

from pathlib import Path

from raymaker.actors.errors import StartError
from raymaker.actors.job_folders import JobFolders
from raymaker.actors.runtime.base import ContainerRuntime, Leftovers, WaitingContainers
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.runtime.docker_engine import engine_answers
from raymaker.actors.runtime.docker_networks import UnusedNetworks
from raymaker.actors.runtime.process import ProcessRuntime
from raymaker.actors.runtime.shared_memory import SharedMemoryFiles


def select_runtime(driver: str, home: Path, standbys: WaitingContainers | None = None) -> ContainerRuntime:
    """Return the driver of that name; `auto` is docker where an engine answers, else process. Raises StartError.

    With `standbys` docker's takes a container that waits where one fits.
    """
    if driver not in {"auto", "docker", "process"}:
        raise StartError(f"there is no driver {driver!r}: set RAYMAKER_DRIVER to auto, docker or process")
    if driver == "process":
        return ProcessRuntime(home)
    if engine_answers():
        return DockerRuntime(home, standbys)
    if driver == "auto":
        return ProcessRuntime(home)
    raise StartError(
        "no container engine answers on this machine: start one (Docker, Podman) and see that this account may use it, "
        "or set RAYMAKER_DRIVER=process to run source code as plain processes"
    )


def available_runtimes(driver: str, home: Path) -> list[ContainerRuntime]:
    """Return every driver that may have left containers here. An engine that is away now may be back later."""
    runtimes: list[ContainerRuntime] = [ProcessRuntime(home)]
    if driver != "process":
        runtimes.append(DockerRuntime(home))
    return runtimes


def available_leftovers(driver: str, home: Path) -> list[Leftovers]:
    """Return every kind of thing that owners may have left here besides containers."""
    folders = [JobFolders(home), JobFolders(home, "transforms", "transform")]
    leftovers: list[Leftovers] = [SharedMemoryFiles(home), *folders]
    if driver != "process":
        leftovers.append(UnusedNetworks(home))
    return leftovers
