"""What an evaluation tells the platform, and the interface through which it does."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from raymaker.actors.runtime.base import LogLine


class Phase(enum.StrEnum):
    """What an evaluation is doing."""

    STARTING = "Starting"
    """Checkpoint, image and scoring container are being made ready."""
    SCORING = "Scoring"
    """Records are being scored."""
    INTERRUPTED = "Interrupted"
    """This try is lost; another may go on."""
    COMPLETED = "Completed"
    """The report has the metrics."""
    FAILED = "Failed"
    """The report says why."""


@dataclass(frozen=True)
class EvaluationReport:
    """One step of one try at an evaluation. `metrics` and `distributions` come with the last one."""

    job_name: str
    number: int
    attempt: int
    phase: Phase
    message: str
    time: float
    record_count: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    distributions: Mapping[str, Any] = field(default_factory=dict)
    """How often which outputs and labels came, as JSON: `Outputs`, `Labels`."""


class EvaluationReporter(Protocol):
    """How an evaluation speaks. Each call is durable when it returns; it retries while the platform is away."""

    def begin_evaluation(self, job_name: str, number: int) -> int:
        """Begin another try; returns its number, from 1. Raises ReportRefused where the evaluation has ended."""

    def report_evaluation(self, report: EvaluationReport) -> None:
        """Record one step. Raises ReportRefused where another try is the evaluation's, or it has ended."""

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines to a log stream."""
