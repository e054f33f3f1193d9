"""The control actor, on the head node: takes the reports of machines and runs the reconciler.

A plain class, made a detached actor by `start.py`. It holds nothing that the database does not: killed at any line and
made again, it goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from raymaker.actors.reports import JobReport, Metric
from raymaker.actors.runtime.base import LogLine
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.cluster.fleet import RayFleet
from raymaker.platform.database import events, metrics, training
from raymaker.platform.database.engine import Database
from raymaker.platform.logstore import LogStore
from raymaker.platform.reconcile import Reconciler
from raymaker.platform.settings import Settings

logger = logging.getLogger(__name__)

IDLE_STEP_S = 1.0
"""How long the reconciler sleeps when nobody wakes it."""


class Control:
    """Reports in, decisions out. Methods run on many threads; the reconciler on one of its own."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.resolved_database_url)
        self._logs = LogStore(settings.home_path / "logs")
        self._reconciler = Reconciler(self._database, RayFleet(settings), settings, load_catalogue(settings))
        self._awake = threading.Event()
        threading.Thread(target=self._reconcile, name="reconciler", daemon=True).start()

    def wake(self) -> None:
        """Have the reconciler look at once."""
        self._awake.set()

    def report(self, report: JobReport) -> None:
        """Record a training job's step. Raises ReportRefused where the attempt is no longer the job's."""
        training.apply_report(self._database, report, time.time())
        if report.outcome is not None or report.phase in {"Interrupted", "Starting"}:
            self._awake.set()

    def metrics(self, job_name: str, attempt: int, found: Sequence[Metric]) -> None:
        """Record a training job's numbers."""
        metrics.insert_metrics(self._database, job_name, attempt, found)

    def endpoint_event(self, endpoint_name: str, generation: int, message: str, *, failed: bool) -> None:
        """Record what an endpoint's replica went through."""
        events.record_endpoint_event(self._database, endpoint_name, generation, message, failed=failed, now=time.time())
        self._awake.set()

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines to a log stream."""
        self._logs.append(group, stream, lines)

    def last_log_time(self, group: str, stream: str) -> int:
        """The time (epoch nanoseconds) of a stream's last line, 0 where it has none."""
        return self._logs.last_time(group, stream)

    def _reconcile(self) -> None:
        while True:
            self._awake.clear()
            try:
                self._reconciler.step(time.time())
            except Exception:
                logger.exception("a reconciler step failed; the next one tries again")
            self._awake.wait(IDLE_STEP_S)
