"""How a test says "run this script" to any container driver, and sees to it that nothing is left behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raymaker.actors.runtime.base import LABEL_HOME, ContainerHandle, ContainerRuntime
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.runtime.process import ProcessRuntime
from raymaker.actors.spec import ContainerSpec, Mount

SOON_S = 20.0
SHARED = "/opt/ml/shared"


class Harness:
    """One driver. Scripts are `sh` programs; `shared` is a folder that the test and every container see."""

    def __init__(self, driver: str, home: Path, runs: dict[str, str]) -> None:
        self.driver = driver
        self.home = home
        self.shared = home / "shared"
        self.shared.mkdir()
        self.shared.chmod(0o777)
        self._runs = runs

    def runtime(self) -> ContainerRuntime:
        """Make a driver object that knows nothing of earlier ones."""
        return DockerRuntime(self.home) if self.driver == "docker" else ProcessRuntime(self.home)

    def spec(self, script: str, *, mounts: tuple[Mount, ...] = (), **fields: Any) -> ContainerSpec:
        """Say how to run a script, under a name of its own."""
        shared = Mount(str(self.shared), SHARED)
        defaults = {"name": f"test-{uuid.uuid4().hex[:12]}", "command": ("sh", "-c", script), **self._runs}
        return ContainerSpec(mounts=(shared, *mounts), **{**defaults, **fields})

    def start(self, script: str, **fields: Any) -> ContainerHandle:
        """Start a script."""
        return self.runtime().start(self.spec(script, **fields))

    def run(self, script: str, **fields: Any) -> list[str]:
        """Run a script to its end, which must be a good one, and return what it said."""
        handle = self.start(script, **fields)
        status = self.runtime().wait(handle, SOON_S)
        said = self.said(handle)
        assert status is not None
        assert status.code == 0, said
        return said

    def said(self, handle: ContainerHandle) -> list[str]:
        """Return the log's texts."""
        return [line.text for line in self.runtime().logs(handle)]

    def wait_for(self, handle: ContainerHandle, text: str) -> None:
        """Wait until a container has said something."""
        eventually(lambda: text in self.said(handle))

    def remove_all(self) -> None:
        """Remove every container that the test left."""
        runtime = self.runtime()
        for handle, _ in runtime.owned({LABEL_HOME: str(self.home)}):
            runtime.remove(handle)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def processes_with(argument: str) -> list[int]:
    """Find the living processes of this machine that have this argument, in whatever namespace they are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has just ended
    return found
