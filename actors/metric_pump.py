"""Numbers that containers tell their exchange: taken at once, passed on by a thread, bounded in memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from raymaker.actors.background import Background
from raymaker.actors.errors import WorkError
from raymaker.actors.reports import JobReporter, Metric, ReportRefused, Source
from raymaker.actors.spec import TrainingSpec

logger = logging.getLogger(__name__)

MOST_KEPT = 100_000
"""How many numbers wait at most while the platform is away; what comes then is lost, and told of."""
BATCH_COUNT = 1000
FLUSH_S = 0.2
SMALLEST_STEP_S = 1e-6
"""No two numbers of a machine have one time: by it the platform tells a repeat."""


class MetricBuffer:
    """Numbers that wait. Threads may share it. `now` gives epoch seconds."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._kept: list[Metric] = []
        self._last = 0.0
        self._lost_count = 0

    def put(self, rank: int, values: Mapping[str, float], step: int | None) -> None:
        """Take what a rank says. Never blocks."""
        with self._lock:
            for name, value in values.items():
                if len(self._kept) >= MOST_KEPT:
                    self._lost_count += 1
                    continue
                self._last = max(self._now(), self._last + SMALLEST_STEP_S)
                self._kept.append(Metric(name, value, self._last, step, rank, Source.EXCHANGE))

    def take(self) -> tuple[list[Metric], int]:
        """Hand over what waits, and how many numbers were lost since the last time."""
        with self._lock:
            taken, self._kept = self._kept, []
            lost_count, self._lost_count = self._lost_count, 0
        return taken, lost_count


class MetricPump(Background):
    """Passes a buffer's numbers on until the block ends, the last ones included. `note` hears what was lost."""

    def __init__(
        self, buffer: MetricBuffer, spec: TrainingSpec, reporter: JobReporter, note: Callable[[str, str], None]
    ) -> None:
        super().__init__("metric-pump")
        self._buffer = buffer
        self._spec = spec
        self._reporter = reporter
        self._note = note

    def _run(self) -> None:
        while not self._over.wait(FLUSH_S):
            self._send()
        self._send()

    def _send(self) -> None:
        metrics, lost_count = self._buffer.take()
        try:
            for start in range(0, len(metrics), BATCH_COUNT):
                self._reporter.metrics(self._spec.job_name, self._spec.attempt, metrics[start : start + BATCH_COUNT])
            if lost_count:
                self._note("MetricsLost", f"{lost_count} numbers came faster than they could be stored, and were lost")
        except (WorkError, ReportRefused):
            logger.exception("the numbers of %s could not be passed on", self._spec.job_name)
