"""What a machine of a transform job tells the platform, and the interface through which it does."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from raymaker.actors.reports import Outcome
from raymaker.actors.runtime.base import LogLine
from raymaker.serving.transform.spec import MIB


class Phase(enum.StrEnum):
    """What a machine is doing."""

    STARTING = "Starting"
    """Image, model and container are being made ready."""
    TRANSFORMING = "Transforming"
    """Objects are being transformed."""
    INTERRUPTED = "Interrupted"
    """The attempt is lost; another may go on."""
    ENDED = "Ended"
    """The report has the outcome."""


@dataclass(frozen=True)
class Progress:
    """How far a machine is with its share of the job's objects; what earlier attempts finished counts too."""

    object_count: int = 0
    done_count: int = 0
    failed_count: int = 0
    record_count: int = 0
    input_bytes: int = 0
    output_bytes: int = 0

    def describe(self) -> str:
        """Say it in words."""
        failed = f" ({self.failed_count} failed)" if self.failed_count else ""
        return (
            f"{self.done_count + self.failed_count} of {self.object_count} objects{failed}, "
            f"{self.record_count} records, "
            f"{self.input_bytes / MIB:.1f} MiB in, {self.output_bytes / MIB:.1f} MiB out"
        )


@dataclass(frozen=True)
class Finished:
    """One object that is through: its output is stored, or `failure` says why there is none."""

    name: str
    record_count: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class TransformReport:
    """One step of one machine. `finished` are the objects that came through since its last report.

    `outcome` is set on the last report only: COMPLETED also where objects failed, which `progress` tells.
    """

    job_name: str
    attempt: int
    machine_index: int
    phase: Phase
    message: str
    time: float
    progress: Progress = field(default_factory=Progress)
    finished: tuple[Finished, ...] = ()
    outcome: Outcome | None = None
    failure_reason: str | None = None


@dataclass(frozen=True)
class Ledger:
    """What is known of a job when a machine begins: objects that are through, and since when it is transforming."""

    finished: Mapping[str, Finished] = field(default_factory=dict)
    started_at: float | None = None


class TransformReporter(Protocol):
    """How a transform job speaks. Each call is durable when it returns; it retries while the platform is away."""

    def begin_transform(self, job_name: str, attempt: int) -> Ledger:
        """Tell what earlier attempts have finished. Raises ReportRefused where the attempt is no longer the job's."""

    def report_transform(self, report: TransformReport) -> None:
        """Record one step. Raises ReportRefused where the attempt is no longer the job's."""

    def note_transform(self, job_name: str, attempt: int, kind: str, message: str) -> None:
        """Record an event of the job that is no step of it, such as a container's death. `kind` is CamelCase."""

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines to a log stream."""
