"""Finds the shared-memory files of this home, for the reaper. What lies in them is the exchange's matter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raymaker.actors.runtime.base import LABEL_HOME, LABEL_OWNER, ContainerHandle, home_tag

FOLDER = Path("/dev/shm")  # noqa: S108 - the place where shared memory lies


class SharedMemoryFiles:
    """Leftovers of the kind `/dev/shm/raymaker-<home's tag>-<lease>`."""

    name = "shared memory"

    def __init__(self, home: Path, folder: Path = FOLDER) -> None:
        self._home = home
        self._folder = folder
        self._prefix = f"raymaker-{home_tag(home)}-"

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        """List the files whose home and owner are those of `labels`."""
        found: list[tuple[ContainerHandle, Mapping[str, str]]] = []
        for path in sorted(self._folder.glob(f"{self._prefix}*")):
            own = {LABEL_HOME: str(self._home), LABEL_OWNER: path.name.removeprefix(self._prefix)}
            if labels.items() <= own.items() and path.is_file():
                found.append((ContainerHandle(self.name, path.name, str(path)), own))
        return found

    def remove(self, handle: ContainerHandle) -> None:
        """Remove one; that it is gone is no error."""
        (self._folder / handle.name).unlink(missing_ok=True)
