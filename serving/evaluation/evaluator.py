"""The evaluator: one process that evaluates a job's checkpoints one after another, each in a scoring container anew.

Made an actor elsewhere. It remembers nothing that counts: made again it does what it is told next.
"""

from __future__ import annotations

import logging
import threading

from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.site import Site
from raymaker.serving.evaluation.reports import EvaluationReporter
from raymaker.serving.evaluation.run import EvaluationRun
from raymaker.serving.evaluation.spec import EvaluationSpec

logger = logging.getLogger(__name__)


class Evaluator:
    """Evaluates in a thread of its own, so that what it is told is heard at any time."""

    def __init__(self, site: Site, runtime: ContainerRuntime, reporter: EvaluationReporter) -> None:
        self._site = site
        self._runtime = runtime
        self._reporter = reporter
        self._next: EvaluationSpec | None = None
        self._running: EvaluationRun | None = None
        self._is_ending = False
        self._told = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="evaluator", daemon=True)
        self._worker.start()

    def evaluate(self, spec: EvaluationSpec | None) -> None:
        """Be at this evaluation, or at none: another that is under way ends. Told again of the same one, it goes on."""
        with self._told:
            running = self._running
            if running is not None and spec is not None and running.number == spec.number:
                return
            self._next = spec
            self._told.notify()
        if running is not None:
            running.stop()

    def end(self) -> None:
        """Have it end soon, and what it is at. Asking twice is fine."""
        with self._told:
            self._is_ending = True
        self.evaluate(None)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until it has ended; False where `timeout_s` passed first."""
        self._worker.join(timeout_s)
        return not self._worker.is_alive()

    def _work(self) -> None:
        """Do what it is told, until it is to end, or has lost a try: the next one is for a process that starts anew."""
        while (run := self._take()) is not None:
            try:
                if not run.run():
                    return
            finally:
                with self._told:
                    self._running = None

    def _take(self) -> EvaluationRun | None:
        """Wait for the next evaluation; None once it is to end."""
        with self._told:
            self._told.wait_for(lambda: self._is_ending or self._next is not None)
            if self._is_ending or self._next is None:
                return None
            self._running = EvaluationRun(self._next, self._site, self._runtime, self._reporter)
            self._next = None
            return self._running
