"""One evaluation: a checkpoint fetched, served by a container of its own, asked for every record, and judged.

May die at any line: made again it begins anew, since nothing counts before its last report. What it meets with is told
and ends this evaluation only; training does not know of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

from raymaker.actors.algorithm import prepare_algorithm
from raymaker.actors.errors import ContainerMissing, EngineAway, WorkError
from raymaker.actors.lease import Lease, LeaseHeld
from raymaker.actors.reports import ReportRefused
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER, ContainerRuntime, LogLine
from raymaker.actors.scoring import ScoringContainer, fetch_model
from raymaker.actors.site import Site
from raymaker.actors.storage import ObjectStore
from raymaker.serving.evaluation.data import read_records
from raymaker.serving.evaluation.function import run_function
from raymaker.serving.evaluation.quality import Histogram, Quality, Results, measure
from raymaker.serving.evaluation.records import RecordWriter
from raymaker.serving.evaluation.reports import EvaluationReport, EvaluationReporter, Phase
from raymaker.serving.evaluation.scorer import Scorer
from raymaker.serving.evaluation.spec import EvaluationSpec

logger = logging.getLogger(__name__)

LOG_GROUP = "/raymaker/Evaluations"
LABEL_EVALUATION = "raymaker.evaluation"
LEASE_TIMEOUT_S = 30.0
PROGRESS_S = 1.0
DEATH_S = 1.0
"""How long a container whose connection has broken may take to be seen dead."""
RECORDS = "records.parquet"


class Stopped(Exception):
    """The evaluation was asked to end."""


class EvaluationRun:
    """One try at one evaluation. `run` blocks until it is over; `stop` may come from any thread."""

    def __init__(
        self, spec: EvaluationSpec, site: Site, runtime: ContainerRuntime, reporter: EvaluationReporter
    ) -> None:
        self.number = spec.number
        self._spec = spec
        self._site = site
        self._runtime = runtime
        self._reporter = reporter
        self._store = ObjectStore(site.store)
        self._name = f"evaluation-{spec.label}"
        self._folder = site.evaluations / spec.label
        self._attempt = 0
        self._stop_requested = False
        self._container: ScoringContainer | None = None

    def run(self) -> bool:
        """Evaluate, and say so. Returns False where this try was lost, and another may go on."""
        try:
            with Lease.acquire(self._site.home, self._name, LEASE_TIMEOUT_S):
                try:
                    self._check_stop()
                    self._attempt = self._reporter.begin_evaluation(self._spec.job_name, self._spec.number)
                    return self._evaluate()
                except (ReportRefused, Stopped) as refusal:
                    logger.warning("%s ends: %s", self._name, refusal)
                    return True
                finally:
                    shutil.rmtree(self._folder, ignore_errors=True)
        except LeaseHeld:
            logger.warning("%s already has a process", self._name)
            return False

    def stop(self) -> None:
        """Have it end soon, and tell nothing more. Asking twice is fine."""
        self._stop_requested = True
        if (container := self._container) is not None:
            container.kill()

    def _evaluate(self) -> bool:
        """Go through the steps, and tell how they ended. Raises ReportRefused, Stopped."""
        try:
            count, quality = self._judge()
        except (EngineAway, ContainerMissing) as lost:
            self._check_stop()
            self._report(Phase.INTERRUPTED, str(lost))
            return False
        except WorkError as error:
            self._check_stop()
            self._report(Phase.FAILED, str(error))
        except (ReportRefused, Stopped):
            raise
        except Exception as error:
            logger.exception("%s failed", self._name)
            self._report(Phase.FAILED, f"InternalServerError: {error!r}")
        else:
            distributions = {"Outputs": _as_json(quality.outputs), "Labels": _as_json(quality.labels)}
            facts: dict[str, Any] = {"metrics": quality.metrics, "distributions": distributions}
            self._report(Phase.COMPLETED, f"Evaluated on {count} records", record_count=count, **facts)
        return True

    def _judge(self) -> tuple[int, Quality]:
        """Score every record, store the results and compute the metrics of them all."""
        spec = self._spec
        self._report(Phase.STARTING, "Preparing the scoring container")
        for handle, _ in self._runtime.owned({LABEL_HOME: str(self._site.home), LABEL_OWNER: self._name}):
            self._runtime.remove(handle)
        shutil.rmtree(self._folder, ignore_errors=True)
        algorithm = prepare_algorithm(
            self._runtime, self._store, self._site, image=spec.scoring.image, source=spec.scoring.source
        )
        self._check_stop()
        fetch_model(self._store, spec.scoring, self._folder / "model")
        records = self._folder / RECORDS
        container = ScoringContainer(
            self._runtime,
            algorithm,
            spec.scoring,
            name=f"raymaker-{self._site.tag}-{self._name}",
            folder=self._folder / "model",
            labels=self._labels,
            on_log=self._log,
        )
        with self._serving(container), RecordWriter(records) as writer:
            results = self._score(container, writer)
        self._check_stop()
        own = self._run_function()
        wanted = [name for name in spec.metrics if name not in own]
        quality = measure(results, spec.problem, wanted, positive_class=spec.answers.positive_class)
        self._store.upload(records, spec.records_uri)
        return len(results.labels), dataclasses.replace(quality, metrics={**quality.metrics, **own})

    def _score(self, container: ScoringContainer, writer: RecordWriter) -> Results:
        address = container.start()
        self._check_stop()
        results, told_at = Results(), time.monotonic()
        self._report(Phase.SCORING, "Scoring records")
        scorer = Scorer(self._spec, address, lambda: container.wait_for(DEATH_S))
        for batch, found, took_s in scorer.score(read_records(self._store, self._spec.data, self._spec.problem)):
            self._check_stop()
            results.labels += [record.label for record in batch]
            results.predictions += found
            results.latencies_s.append(took_s)
            writer.write(batch, found)
            if time.monotonic() - told_at >= PROGRESS_S:
                told_at = time.monotonic()
                self._report(Phase.SCORING, f"Scored {len(results.labels)} records")
        return results

    @contextlib.contextmanager
    def _serving(self, container: ScoringContainer) -> Iterator[None]:
        """Let `stop` find the container, and leave nothing of it."""
        self._container = container
        try:
            yield
        finally:
            self._container = None
            container.remove()

    def _run_function(self) -> dict[str, float]:
        if self._spec.function is None:
            return {}
        return run_function(
            self._spec,
            self._folder / RECORDS,
            self._runtime,
            site=self._site,
            name=f"raymaker-{self._site.tag}-{self._name}-function",
            labels=self._labels,
        )

    @property
    def _labels(self) -> dict[str, str]:
        return {
            LABEL_KIND: "scoring",
            LABEL_OWNER: self._name,
            LABEL_HOME: str(self._site.home),
            LABEL_EVALUATION: self._spec.label,
        }

    def _report(self, phase: Phase, message: str, **facts: Any) -> None:
        """Tell where it is; durable when it returns. Raises ReportRefused."""
        spec = self._spec
        report = EvaluationReport(spec.job_name, spec.number, self._attempt, phase, message, time.time(), **facts)
        self._reporter.report_evaluation(report)

    def _log(self, lines: Sequence[LogLine]) -> None:
        stream = f"{self._spec.job_name}/evaluation-{self._spec.number}-{self._attempt}"
        self._reporter.log(LOG_GROUP, stream, lines)

    def _check_stop(self) -> None:
        if self._stop_requested:
            raise Stopped("it was asked to end")


def _as_json(histogram: Histogram) -> dict[str, Any]:
    found: dict[str, Any] = {"Counts": list(histogram.counts)}
    if histogram.classes:
        return {**found, "Classes": list(histogram.classes)}
    return {**found, "Edges": list(histogram.edges)}
