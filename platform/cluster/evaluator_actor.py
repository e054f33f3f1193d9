"""An evaluation as an actor, and how it reaches the control actor. A module that only its own process imports."""

from __future__ import annotations

import ray

from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.site import Site
from raymaker.platform.cluster.reporter import ControlReporter
from raymaker.serving.evaluation.evaluator import Evaluator
from raymaker.serving.evaluation.reports import EvaluationReport


class ControlEvaluationReporter(ControlReporter):
    """An EvaluationReporter by way of the control actor."""

    def begin_evaluation(self, job_name: str, number: int) -> int:
        """Begin another try."""
        return int(self._call("begin_evaluation", job_name, number))

    def report_evaluation(self, report: EvaluationReport) -> None:
        """Record one step; returns once it is durable."""
        self._call("report_evaluation", report)


class EvaluatorActor(Evaluator):
    """An evaluator where Ray runs it: made again for as long as it dies by accident, gone when it has ended."""

    def __init__(self, site: Site) -> None:
        self._self = ray.get_runtime_context().current_actor
        super().__init__(site, select_runtime(site.driver, site.home, site.standbys), ControlEvaluationReporter())

    def _work(self) -> None:
        super()._work()
        ray.kill(self._self, no_restart=True)
