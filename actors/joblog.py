"""What a running job says: its log lines, carried to the platform as they come, and the numbers found in them."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from raymaker.actors.errors import WorkError
from raymaker.actors.reports import JobReporter, Metric, ReportRefused
from raymaker.actors.runtime.base import ContainerHandle, ContainerRuntime, LogLine
from raymaker.actors.spec import MetricDefinition, TrainingSpec, host_name

logger = logging.getLogger(__name__)

GROUP = "/aws/sagemaker/TrainingJobs"
FLUSH_S = 0.2
BATCH_COUNT = 1000


class JobLog:
    """Follows one container's log in a thread until the container ends; taken up again it goes on where it was."""

    def __init__(
        self, runtime: ContainerRuntime, handle: ContainerHandle, spec: TrainingSpec, reporter: JobReporter, rank: int
    ) -> None:
        self._runtime = runtime
        self._handle = handle
        self._spec = spec
        self._reporter = reporter
        self._rank = rank
        self._stream = f"{spec.job_name}/{host_name(rank)}-{spec.label}"
        self._patterns = compile_definitions(spec.metric_definitions)
        self._pending: list[LogLine] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, name="log-reader", daemon=True)
        self._sender = threading.Thread(target=self._send_all, name="log-sender", daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        self._sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last lines, so that a job's log is whole before its end is reported."""
        self._reader.join(timeout=30)
        self._over.set()
        self._sender.join(timeout=30)

    def _read(self) -> None:
        try:
            since = self._reporter.last_log_time(GROUP, self._stream)
            for line in self._runtime.logs(self._handle, since, follow=True):
                while len(self._pending) >= BATCH_COUNT * 10:  # back-pressure: the container's pipe fills, not memory
                    time.sleep(FLUSH_S)
                with self._lock:
                    self._pending.append(line)
        except (WorkError, ReportRefused):
            logger.exception("following the log of %s ended early", self._spec.job_name)

    def _send_all(self) -> None:
        while not self._over.wait(FLUSH_S):
            self._send()
        self._send()

    def _send(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, []
        for start in range(0, len(batch), BATCH_COUNT):
            lines = batch[start : start + BATCH_COUNT]
            if metrics := find_metrics(self._patterns, lines, self._rank):
                self._reporter.metrics(self._spec.job_name, self._spec.attempt, metrics)
            self._reporter.log(GROUP, self._stream, lines)


def find_metrics(
    patterns: Sequence[tuple[str, re.Pattern[str]]], lines: Iterable[LogLine], rank: int | None = None
) -> list[Metric]:
    """Return the numbers that metric definitions find in log lines; text that is no number is passed over."""
    found = []
    for line in lines:
        for name, pattern in patterns:
            match = pattern.search(line.text)
            value = _number(match.group(1)) if match and pattern.groups else None
            if value is not None:
                found.append(Metric(name, value, line.time_ns / 1e9, rank=rank))
    return found


def compile_definitions(definitions: Iterable[MetricDefinition]) -> list[tuple[str, re.Pattern[str]]]:
    """Compile metric definitions. Raises re.error for a regular expression that is none."""
    return [(d.name, re.compile(d.regex)) for d in definitions]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
