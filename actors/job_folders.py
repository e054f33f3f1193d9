"""Finds the folders of attempts at jobs that nobody works in any more, for the reaper."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from raymaker.actors.channels.once import SharedChannels
from raymaker.actors.mounting import remove_tree
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_OWNER, ContainerHandle

CHANNELS = "-channels"


class JobFolders:
    """Leftovers of the kind `<root>/<job>/<part>`. A part is owned by the lease `<kind>-<job>-<part>`.

    The channels that an attempt's instances share have no lease: they are locked by whoever holds them.
    """

    name = "job folders"

    def __init__(self, home: Path, root: str = "jobs", kind: str = "training") -> None:
        self._home = home
        self._jobs = home / root
        self._kind = kind

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        """List the folders whose home and owner are those of `labels`."""
        found: list[tuple[ContainerHandle, Mapping[str, str]]] = []
        for path in sorted(self._jobs.glob("*/*")):
            own = {LABEL_HOME: str(self._home), LABEL_OWNER: f"{self._kind}-{path.parent.name}-{path.name}"}
            if labels.items() <= own.items() and not (path.name.endswith(CHANNELS) and SharedChannels(path).is_held()):
                found.append((ContainerHandle(self.name, f"{path.parent.name}/{path.name}", str(path)), own))
        return found

    def remove(self, handle: ContainerHandle) -> None:
        """Remove one, unless it is somebody's channels by now; that it is gone is no error."""
        folder = self._jobs / handle.name
        if folder.name.endswith(CHANNELS):
            channels = SharedChannels(folder)
            channels.hold()
            channels.release()
        else:
            remove_tree(folder)
        with contextlib.suppress(OSError):  # other parts of the job are still there
            folder.parent.rmdir()
