"""Which driver runs containers on this machine."""

from __future__ import annotations

from pathlib import Path

from raymaker.actors.errors import StartError
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.runtime.docker import DockerRuntime, engine_answers
from raymaker.actors.runtime.process import ProcessRuntime


def select_runtime(driver: str, home: Path) -> ContainerRuntime:
    """Return the driver of that name; `auto` is docker where an engine answers, else process. Raises StartError."""
    if driver == "process":
        return ProcessRuntime(home)
    if engine_answers():
        return DockerRuntime(home)
    if driver == "auto":
        return ProcessRuntime(home)
    raise StartError(
        "no container engine answers on this machine: start one (Docker, Podman), or set RAYMAKER_DRIVER=process to run "
        "source code as plain processes"
    )


def available_runtimes(driver: str, home: Path) -> list[ContainerRuntime]:
    """Return every driver that may have left containers here: processes always, an engine's where one answers."""
    runtimes: list[ContainerRuntime] = [ProcessRuntime(home)]
    if driver != "process" and engine_answers():
        runtimes.append(DockerRuntime(home))
    return runtimes
