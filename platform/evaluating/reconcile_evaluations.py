"""Evaluations in the reconciler's loop: made when checkpoints come, followed while they run, placed after all jobs.

Knows no Ray: what it asks of the cluster is the `EvaluatorFleet` protocol.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy import Connection

from raymaker.actors.spec import InstanceType
from raymaker.platform.database import evaluations
from raymaker.platform.database.engine import Database
from raymaker.platform.database.evaluation_reports import unfinished_evaluations
from raymaker.platform.evaluating import evaluations as moves
from raymaker.platform.evaluating.evaluation_specs import evaluation_spec
from raymaker.platform.evaluating.evaluations import EvaluationRecord, EvaluationStatus, Trigger, is_scheduled
from raymaker.platform.evaluating.watch import CheckpointWatch, Listing
from raymaker.platform.placing import Line, logged
from raymaker.platform.records import TrainingJobRecord, TrainingJobStatus
from raymaker.platform.room import Holding, Queued
from raymaker.serving.evaluation.spec import EvaluationSpec

logger = logging.getLogger(__name__)

NAMED_COUNT = 5
CLOCKS_APART_S = 60.0
"""How far behind a store's clock may be: what it says was there before the job is not the job's."""
EvaluatorKey = tuple[str, int]
"""A job, and the evaluation's number."""


class EvaluatorFleet(Protocol):
    """What evaluations ask of the cluster."""

    def evaluators(self) -> frozenset[EvaluatorKey]:
        """Name every evaluation that has its machine, placed or still waiting for its place."""

    def launch_evaluation(self, spec: EvaluationSpec) -> None:
        """Start an evaluation, and keep what it needs from others until it has it. One that lives is not started."""

    def stop_evaluation(self, key: EvaluatorKey) -> None:
        """Ask an evaluation to end. Never blocks."""


class EvaluationReconciler:
    """Steps over the jobs that are evaluated, and over all unfinished evaluations."""

    def __init__(
        self,
        database: Database,
        fleet: EvaluatorFleet,
        catalogue: Mapping[str, InstanceType],
        watch: CheckpointWatch,
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._catalogue = catalogue
        self._watch = watch
        self._had_evaluators = True
        """Whether there may be any to be ended; an earlier process may have left some."""

    def step(self, jobs: Sequence[TrainingJobRecord], now: float) -> Line:
        """Look after the evaluations of all `jobs`, which have not ended; return what waits for room and is held."""
        self._make(jobs, now)
        unfinished = unfinished_evaluations(self._database)
        running = [(record, job) for record, job in unfinished if record.status is EvaluationStatus.IN_PROGRESS]
        if running or self._had_evaluators:
            self._follow(running)
        waiting, holdings = [], {}
        for record, job in unfinished:
            with logged(_label(record)):
                instance_type = evaluation_spec(job, record, self._catalogue).instance_type
                if record.status is EvaluationStatus.PENDING:
                    waiting.append(self._queue(record, job, instance_type))
                else:
                    holdings[_label(record)] = Holding(job.account, instance_type.resources, now)
        return Line(waiting, holdings)

    def _make(self, jobs: Sequence[TrainingJobRecord], now: float) -> None:
        """Make evaluations of checkpoints that are new."""
        watched = {
            job.name: (job, uri)
            for job in jobs
            if is_scheduled(job.request) and (uri := job.request.get("CheckpointConfig", {}).get("S3Uri")) is not None
        }
        self._watch.keep_only({uri for _, uri in watched.values()})
        for job, uri in watched.values():
            if job.status is TrainingJobStatus.IN_PROGRESS and job.started_at is not None:
                try:
                    self._consider(job, self._watch.newest(uri), now)
                except Exception:
                    logger.exception("could not look after the evaluation of %s; the next step tries again", job.name)

    def _consider(self, job: TrainingJobRecord, stored: Listing, now: float) -> None:
        """Have the newest checkpoint evaluated, unless that is under way, or it is too early."""
        if not stored:
            return
        newest = stored[0]
        with self._database.reading() as connection:
            last = evaluations.last_evaluation(connection, job.name)
            seen_at = evaluations.last_checkpoint_at(connection, job.name)
        if newest.modified_at <= max(seen_at, job.created_at - CLOCKS_APART_S):
            return  # seen already, or there before the job was
        config = job.request["EvaluationConfig"]
        if last is not None and last.status is EvaluationStatus.PENDING and last.trigger is Trigger.CHECKPOINT:
            with self._database.transaction() as connection:
                evaluations.move_evaluation(
                    connection, job.name, last.number, lambda it: moves.retarget(it, newest.name, newest.modified_at)
                )
                _note_skipped(connection, job, [last.checkpoint or ""], "there was no room yet", now)
            return
        if last is not None and not last.status.ended:
            return  # what is newest then is looked at when it has ended
        if last is not None and now - last.created_at < config.get("IntervalInSeconds", 0):
            return
        passed = [each.name for each in stored[1:] if last is not None and each.modified_at > seen_at]
        with self._database.transaction() as connection:
            evaluations.insert_evaluation(
                connection,
                job,
                Trigger.CHECKPOINT,
                config,
                now=now,
                checkpoint=newest.name,
                checkpoint_at=newest.modified_at,
            )
            reason = "newer ones came while another was evaluated, or before it was time"
            _note_skipped(connection, job, passed, reason, now)

    def _follow(self, running: Sequence[tuple[EvaluationRecord, TrainingJobRecord]]) -> None:
        """See that every evaluation that was started has its machine, and no other has one."""
        alive = self._fleet.evaluators()
        self._had_evaluators = bool(alive)
        wanted = {(record.job_name, record.number) for record, _ in running}
        for record, job in running:
            if (record.job_name, record.number) not in alive and self._still_runs(record):
                self._launch(record, job)
        for key in alive - wanted:
            self._fleet.stop_evaluation(key)

    def _still_runs(self, record: EvaluationRecord) -> bool:
        """Whether it has not ended since its record was read: then its machine has gone, as it should."""
        with self._database.reading() as connection:
            found = evaluations.find_evaluation(connection, record.job_name, record.number)
        return found is not None and found.status is EvaluationStatus.IN_PROGRESS

    def _queue(self, record: EvaluationRecord, job: TrainingJobRecord, instance_type: InstanceType) -> Queued:
        """Put an evaluation in line."""
        what = f"an instance of {instance_type.name}"
        key = (record.job_name, record.number)

        def start(now: float) -> None:
            with self._database.transaction() as connection:
                started = evaluations.move_evaluation(connection, *key, lambda it: moves.start(it, now))
            self._launch(started, job)

        def tell(connection: Connection, reason: str, _now: float) -> None:
            evaluations.move_evaluation(connection, *key, lambda it: moves.mark_pending(it, reason))

        return Queued(
            account=job.account,
            created_at=record.created_at,
            name=_label(record),
            needed=instance_type.resources,
            what=what,
            limit_s=math.inf,
            told=record.message if what in record.message else None,
            start=start,
            tell=tell,
        )

    def _launch(self, record: EvaluationRecord, job: TrainingJobRecord) -> None:
        try:
            self._fleet.launch_evaluation(evaluation_spec(job, record, self._catalogue))
            self._had_evaluators = True
        except Exception:
            logger.exception("could not start evaluation %d of %s; the next step tries again", record.number, job.name)


def _label(record: EvaluationRecord) -> str:
    """Name an evaluation among jobs."""
    return f"evaluation {record.number} of {record.job_name}"


def _note_skipped(
    connection: Connection, job: TrainingJobRecord, names: Sequence[str], reason: str, now: float
) -> None:
    """Tell which checkpoints were passed over, where any were."""
    if names:
        message = f"{_some(names)} will not be evaluated: {reason}"
        evaluations.note(connection, job, "EvaluationSkipped", message, now)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_COUNT} more" if len(names) > NAMED_COUNT else ""
    return f"checkpoint{'s'[: len(names) > 1]} {', '.join(names[:NAMED_COUNT])}{more}"
