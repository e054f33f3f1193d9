"""How machines of transform jobs reach the control actor."""

from __future__ import annotations

from raymaker.platform.cluster.reporter import ControlReporter
from raymaker.serving.transform.reports import Ledger, TransformReport


class ControlTransformReporter(ControlReporter):
    """A TransformReporter by way of the control actor."""

    def begin_transform(self, job_name: str, attempt: int) -> Ledger:
        """Tell what is through already."""
        ledger: Ledger = self._call("begin_transform", job_name, attempt)
        return ledger

    def report_transform(self, report: TransformReport) -> None:
        """Record one step; returns once it is durable."""
        self._call("report_transform", report)

    def note_transform(self, job_name: str, attempt: int, kind: str, message: str) -> None:
        """Record an event of the job."""
        self._call("note_transform", job_name, attempt, kind, message)
