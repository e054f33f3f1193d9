"""Evaluations in the reconciler's loop: made when checkpoints come, followed while they run, placed after all jobs.

Which evaluators there are, and how long they stay, is the matter of `evaluators.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from raymaker.actors.spec import InstanceType
from raymaker.platform.catalogue import CatalogueError
from raymaker.platform.database import evaluations
from raymaker.platform.database.engine import Database
from raymaker.platform.database.evaluation_reports import unfinished_evaluations
from raymaker.platform.evaluating import evaluations as moves
from raymaker.platform.evaluating.evaluation_specs import evaluation_spec
from raymaker.platform.evaluating.evaluations import EvaluationRecord, EvaluationStatus, Trigger, is_scheduled
from raymaker.platform.evaluating.evaluators import TURNS, EvaluatorFleet, EvaluatorKey, Evaluators
from raymaker.platform.evaluating.watch import CheckpointWatch, Listing
from raymaker.platform.placing import logged
from raymaker.platform.records import TrainingJobRecord, TrainingJobStatus
from raymaker.platform.room import Holding, Queued, Room
from raymaker.serving.evaluation.spec import EvaluationSpec

logger = logging.getLogger(__name__)

NAMED_COUNT = 5
CLOCKS_APART_S = 60.0
"""How far behind a store's clock may be: what it says was there before the job is not the job's."""


class EvaluationReconciler:
    """Steps over the jobs that are evaluated, and over all unfinished evaluations."""

    def __init__(
        self,
        database: Database,
        fleet: EvaluatorFleet,
        catalogue: Mapping[str, InstanceType],
        watch: CheckpointWatch,
        keep_s: float,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._watch = watch
        self._evaluators = Evaluators(fleet, keep_s)
        self._waiting: list[tuple[EvaluationRecord, TrainingJobRecord]] = []
        self.is_room_wanted = False
        """Whether somebody who does not queue here, as endpoints do, may lack room."""

    @property
    def are_making_way(self) -> bool:
        """Whether evaluators are about to go, for what waits for their room."""
        return self._evaluators.are_making_way

    def step(self, jobs: Sequence[TrainingJobRecord], now: float) -> dict[str, Holding]:
        """Look after the evaluations of all `jobs`, which have not ended; return what those hold that were started."""
        self._make(jobs, now)
        unfinished = unfinished_evaluations(self._database)
        running = [(record, job) for record, job in unfinished if record.status is EvaluationStatus.IN_PROGRESS]
        self._waiting = [(record, job) for record, job in unfinished if record.status is EvaluationStatus.PENDING]
        expected = {job.name for _, job in self._waiting}
        if not any("MaxInstanceCount" in job.request["ResourceConfig"] for job in jobs):
            expected |= {job.name for job in jobs if is_scheduled(job.request)}
        specs = [(job, spec) for record, job in running if (spec := self._spec(record, job)) is not None]
        self._evaluators.step([spec for _, spec in specs], expected, now)
        if self.is_room_wanted:
            self._evaluators.make_way()
        return {
            f"evaluation {spec.number} of {spec.job_name}": Holding(job.account, spec.instance_type.resources, now)
            for job, spec in specs
        }

    @property
    def is_waiting(self) -> bool:
        """Whether an evaluation waits to begin."""
        return bool(self._waiting)

    def offer(self, room: Room, now: float) -> list[Queued]:
        """Have free evaluators go on, and return those evaluations that wait for room, now that all jobs had theirs.

        Evaluators that hold what a job waits for make way.
        """
        queued: dict[EvaluatorKey, Queued] = {}
        for record, job in self._waiting:
            with logged(_label(record)):
                spec = evaluation_spec(job, record, self._catalogue)
                reason = self._evaluators.why_not(spec, room)
                if spec.evaluator in queued:
                    self._tell(record, f"Waiting for {queued[spec.evaluator].name}: {TURNS}")
                elif reason is not None:
                    self._tell(record, reason)
                elif self._evaluators.is_free(spec):
                    self._start(record, spec, now)
                else:
                    queued[spec.evaluator] = self._queue(record, job, spec)
        self._evaluators.make_way(room)
        return list(queued.values())

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

    def _queue(self, record: EvaluationRecord, job: TrainingJobRecord, spec: EvaluationSpec) -> Queued:
        """Put an evaluation in line for the room of an evaluator."""
        what = f"an instance of {spec.instance_type.name}"
        key = (record.job_name, record.number)

        def tell(connection: Connection, reason: str, _now: float) -> None:
            evaluations.move_evaluation(connection, *key, lambda it: moves.mark_pending(it, reason))

        return Queued(
            account=job.account,
            created_at=record.created_at,
            name=_label(record),
            each=spec.instance_type.resources,
            count=1,
            what=what,
            limit_s=math.inf,
            told=record.message if what in record.message else None,
            start=lambda now: self._start(record, spec, now),
            tell=tell,
        )

    def _start(self, record: EvaluationRecord, spec: EvaluationSpec, now: float) -> None:
        with self._database.transaction() as connection:
            moved = evaluations.move_evaluation(
                connection, record.job_name, record.number, lambda it: moves.start(it, now)
            )
        if moved.status is EvaluationStatus.IN_PROGRESS:
            self._evaluators.evaluate(spec)

    def _tell(self, record: EvaluationRecord, reason: str) -> None:
        if record.message != reason:
            with self._database.transaction() as connection:
                evaluations.move_evaluation(
                    connection, record.job_name, record.number, lambda it: moves.mark_pending(it, reason)
                )

    def _spec(self, record: EvaluationRecord, job: TrainingJobRecord) -> EvaluationSpec | None:
        try:
            return evaluation_spec(job, record, self._catalogue)
        except CatalogueError:
            logger.exception("evaluation %d of %s cannot go on", record.number, job.name)
            return None


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
