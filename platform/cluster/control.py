"""The control actor, on the head node: takes the reports of machines and runs the reconciler.

A plain class, made a detached actor by `start.py`. It holds nothing that the database does not: killed at any line and
made again, it goes on.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from raymaker.actors.checkpoints.stored import list_checkpoints
from raymaker.actors.checkpoints.sync import CHECKPOINT_STORED
from raymaker.actors.reports import Activity, JobReport, Metric, UpdateReport
from raymaker.actors.runtime.base import LogLine
from raymaker.actors.spec import Standing
from raymaker.actors.storage import ObjectStore
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.changing.update_specs import standing_of
from raymaker.platform.cluster.fleet import RayFleet
from raymaker.platform.cluster.janitors import Janitors
from raymaker.platform.cluster.site import site_of
from raymaker.platform.database import evaluation_reports, events, metrics, training, transforms, updates
from raymaker.platform.database.activity import record_activity
from raymaker.platform.database.engine import Database
from raymaker.platform.database.invocations import DatabaseQueue
from raymaker.platform.evaluating.evaluations import EvaluationStatus
from raymaker.platform.evaluating.notifier import Notifier
from raymaker.platform.evaluating.watch import CheckpointWatch
from raymaker.platform.logstore import LogStore
from raymaker.platform.pools.seen import SeenPool
from raymaker.platform.reconcile import Reconciler
from raymaker.platform.settings import Settings
from raymaker.serving.async_queue import InvocationQueue
from raymaker.serving.evaluation.reports import EvaluationReport
from raymaker.serving.transform.reports import Ledger, Phase, TransformReport

logger = logging.getLogger(__name__)

IDLE_STEP_S = 1.0
"""How long the reconciler sleeps when nobody wakes it."""
HURRIED_STEP_S = 0.1
"""How long it sleeps while somebody waits for an endpoint to wake, or for room that a job leaves which has ended."""
LONGEST_REST_S = 0.05
"""It rests for as long as a step took, this at most, however often it is woken: a burst of requests is no storm."""
SWEEP_S = 5.0


class Control:
    """Reports in, decisions out. Methods run on many threads; the reconciler on one of its own."""

    def __init__(self, settings: Settings) -> None:
        self._awake = threading.Event()
        self._database = Database(settings.resolved_database_url)
        self._queue: InvocationQueue = DatabaseQueue(self._database)
        self._logs = LogStore(settings.home_path / "logs")
        self._fleet = RayFleet(settings, self.wake)
        self._settings = settings
        self._catalogue = load_catalogue(settings)
        self._site = site_of(settings)
        store = ObjectStore(self._site.store)
        self._watch = CheckpointWatch(lambda uri: list_checkpoints(store, uri), self.wake)
        self._reconciler = Reconciler(self._database, self._fleet, settings, self._catalogue, self._watch)
        self._notifier = Notifier(self._database)
        self._notifier.start()
        self._janitors = Janitors(self._site, may_leave=settings.grows)
        self._swept_at = 0.0
        threading.Thread(target=self._reconcile, name="reconciler", daemon=True).start()

    def wake(self) -> None:
        """Have the reconciler look at once."""
        self._awake.set()

    def pool(self) -> SeenPool:
        """The machines that run jobs, and those that wait."""
        return self._fleet.pool

    def living_pools(self) -> frozenset[str]:
        """Name the warm pools that are in use or kept."""
        live = training.live_warm_pools(self._database)
        return frozenset(job.warm_pool.pool_id for job in live if job.warm_pool is not None)

    def greet(self) -> None:
        """Be called, by who is about to have something to say."""

    def report(self, report: JobReport) -> None:
        """Record a training job's step. Raises ReportRefused where the attempt is no longer the job's."""
        if report.outcome is not None:
            updates.measure_last(self._database, report.job_name, time.time())
        training.apply_report(self._database, report, time.time())
        if report.outcome is not None or report.phase == "Interrupted":
            self._fleet.note_end((report.job_name, report.attempt))
            self._awake.set()

    def begin_start(self, job_name: str, attempt: int, message: str) -> Standing:
        """Begin the next start of an attempt's instances, and tell what it is to run.

        Raises ReportRefused where the attempt is not the job's.
        """
        start = training.begin_start(self._database, job_name, attempt, message, time.time())
        standing = self.standing(job_name, attempt)
        return dataclasses.replace(standing, spec=dataclasses.replace(standing.spec, start=start))

    def standing(self, job_name: str, attempt: int) -> Standing:
        """Tell what a training job is to run. Raises ReportRefused where the attempt is not the job's."""
        job = updates.current_job(self._database, job_name, attempt)
        return standing_of(job, self._catalogue, self._settings)

    def report_update(self, report: UpdateReport) -> bool:
        """Record what became of a change. Raises ReportRefused where the attempt is not the job's."""
        may_go_on = updates.apply_update_report(self._database, report, time.time())
        self._awake.set()
        return may_go_on

    def note(self, job_name: str, attempt: int, kind: str, message: str) -> None:
        """Record an event of a training job."""
        events.record_job_event(self._database, job_name, attempt, kind, message, now=time.time())
        if kind == CHECKPOINT_STORED:
            self._watch.hurry()
            self._awake.set()

    def metrics(self, job_name: str, attempt: int, found: Sequence[Metric]) -> None:
        """Record a training job's numbers."""
        metrics.insert_metrics(self._database, job_name, attempt, found)

    def begin_transform(self, job_name: str, attempt: int) -> Ledger:
        """Tell a transform job's machine what is through. Raises ReportRefused where its attempt is not the job's."""
        return transforms.begin(self._database, job_name, attempt)

    def report_transform(self, report: TransformReport) -> None:
        """Record a step of a transform job's machine. Raises ReportRefused where its attempt is not the job's."""
        transforms.apply_report(self._database, report, time.time())
        if report.outcome is not None or report.phase is Phase.INTERRUPTED:
            self._awake.set()

    def note_transform(self, job_name: str, attempt: int, kind: str, message: str) -> None:
        """Record an event of a transform job."""
        transforms.note(self._database, job_name, attempt, kind, message, now=time.time())

    def begin_evaluation(self, job_name: str, number: int) -> int:
        """Begin another try of an evaluation. Raises ReportRefused where that has ended."""
        return evaluation_reports.begin(self._database, job_name, number, time.time())

    def report_evaluation(self, report: EvaluationReport) -> None:
        """Record an evaluation's step. Raises ReportRefused where it must end."""
        moved = evaluation_reports.apply_report(self._database, report, time.time())
        if moved.status is not EvaluationStatus.IN_PROGRESS:
            self._awake.set()
            self._notifier.wake()

    def endpoint_event(self, endpoint_name: str, generation: int, message: str, *, failed: bool) -> None:
        """Record what an endpoint's replica went through."""
        events.record_endpoint_event(self._database, endpoint_name, generation, message, failed=failed, now=time.time())
        self._awake.set()

    def endpoint_activity(self, activity: Activity) -> None:
        """Record the load of an endpoint's replica."""
        record_activity(self._database, activity)

    def queue(self, method: str, *arguments: Any) -> Any:
        """Carry out a call of `InvocationQueue`."""
        return getattr(self._queue, method)(*arguments)

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines to a log stream."""
        self._logs.append(group, stream, lines)

    def last_log_time(self, group: str, stream: str) -> int:
        """The time (epoch nanoseconds) of a stream's last line, 0 where it has none."""
        return self._logs.last_time(group, stream)

    def _reconcile(self) -> None:
        while True:
            self._awake.clear()
            begun = time.monotonic()
            for step in (self._reconciler.step, self._fleet.keep_warm, self._janitors.step, self._sweep):
                try:
                    step(time.time())
                except Exception:
                    logger.exception("a step of the control loop failed; the next one tries again")
            ended = time.monotonic()
            self._awake.wait(HURRIED_STEP_S if self._reconciler.is_hurried else IDLE_STEP_S)
            time.sleep(max(0.0, ended + min(ended - begun, LONGEST_REST_S) - time.monotonic()))

    def _sweep(self, now: float) -> None:
        """Give back room that gangs left behind, now and then."""
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            self._fleet.sweep()
