"""Has an attempt's steps told to the platform in their order, while the next step is taken."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from raymaker.actors.reports import JobReport, JobReporter
from raymaker.actors.spec import Standing


class Teller:
    """One attempt's, with a thread of its own. Enter it to have all told by the block's end."""

    def __init__(self, reporter: JobReporter) -> None:
        self._reporter = reporter
        self._thread = ThreadPoolExecutor(1, "reports")
        self._told: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def ask(self, job_name: str, attempt: int) -> Future[Standing]:
        """Ask what the job is to run."""
        return self._thread.submit(self._reporter.standing, job_name, attempt)

    def tell(self, report: JobReport) -> None:
        """Tell it once all before it is told."""
        self._told.append(self._thread.submit(self._reporter.report, report))

    def check(self) -> None:
        """Raise ReportRefused where it is known by now that something was refused."""
        for each in self._told:
            if each.done():
                each.result()

    def settle(self) -> None:
        """Wait until all is durable. Raises ReportRefused where something was refused."""
        told, self._told = self._told, []
        for each in told:
            each.result()
