"""An EndpointReporter that writes to a file, which replicas on any process of this machine and a test can share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raymaker.actors.reports import Activity
from raymaker.actors.runtime.base import LogLine


@dataclass(frozen=True)
class FileReporter:
    """One JSON document per line in `path`."""

    path: Path

    def event(self, endpoint_name: str, generation: int, message: str, *, failed: bool) -> None:
        self._write({"endpoint": endpoint_name, "generation": generation, "message": message, "failed": failed})

    def activity(self, activity: Activity) -> None:
        self._write({"activity": activity.endpoint_name, **dataclasses.asdict(activity)})

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        self._write({"group": group, "stream": stream, "lines": [line.text for line in lines]})

    def read(self) -> list[dict]:
        """Everything reported until now."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def failures(self, endpoint_name: str) -> list[str]:
        """What was reported as failed of one endpoint."""
        return [e["message"] for e in self.read() if e.get("endpoint") == endpoint_name and e["failed"]]

    def _write(self, document: dict) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(document) + "\n")
