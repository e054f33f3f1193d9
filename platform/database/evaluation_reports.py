"""What evaluations report, and what that sets off in the same transaction: metrics, alarms, early stopping."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from raymaker.actors.reports import ReportRefused
from raymaker.platform import transitions
from raymaker.platform.database import evaluations, training
from raymaker.platform.database.engine import Database
from raymaker.platform.database.evaluations import EvaluationMissing
from raymaker.platform.database.metrics import add_metrics
from raymaker.platform.database.notices import add_notice
from raymaker.platform.evaluating import evaluations as moves
from raymaker.platform.evaluating import quality_alarms
from raymaker.platform.evaluating.evaluations import EvaluationRecord, EvaluationStatus
from raymaker.platform.records import TrainingJobRecord
from raymaker.serving.evaluation.reports import EvaluationReport


def unfinished_evaluations(database: Database) -> list[tuple[EvaluationRecord, TrainingJobRecord]]:
    """Read all evaluations that have not ended, each with its job, in the order in which they came."""
    with database.reading() as connection:
        found = evaluations.list_unfinished(connection)
        jobs = training.find_training_jobs(connection, {record.job_name for record in found}) if found else {}
    return [(record, jobs[record.job_name]) for record in found if record.job_name in jobs]


def begin(database: Database, job_name: str, number: int, now: float) -> int:
    """Begin another try of an evaluation; returns its number. Raises ReportRefused where the evaluation has ended."""
    with _refusing(), database.transaction() as connection:
        begun = evaluations.move_evaluation(connection, job_name, number, lambda it: moves.begin_attempt(it, now))
    if begun.status.ended:
        raise ReportRefused(begun.failure_reason)
    return begun.attempt


def apply_report(database: Database, report: EvaluationReport, now: float) -> EvaluationRecord:
    """Take one report; durable when it returns, with what it sets off. Raises ReportRefused."""
    with _refusing(), database.transaction() as connection:
        before = evaluations.find_evaluation(connection, report.job_name, report.number)
        moved = evaluations.move_evaluation(
            connection, report.job_name, report.number, lambda it: moves.apply_report(it, report, now)
        )
        has_completed = moved.status is EvaluationStatus.COMPLETED and before is not None and not before.status.ended
        job = training.find_training_job(connection, report.job_name) if has_completed else None
        if job is not None:
            add_metrics(connection, job.name, job.attempt, moved.as_metrics())
            _raise_alarms(connection, job, moved, now)
    return moved


def _raise_alarms(connection: Connection, job: TrainingJobRecord, last: EvaluationRecord, now: float) -> None:
    """Note the alarms that fire now, and stop the job where one asks for that."""
    alarms: Sequence[dict[str, Any]] = last.config.get("Alarms", ())
    if not alarms:
        return
    completed = evaluations.list_evaluations(connection, job.name, status=EvaluationStatus.COMPLETED)
    history = [record.metrics for record in completed if record.number <= last.number]
    for alarm in alarms:
        reason = quality_alarms.fired(alarm, history)
        if reason is None:
            continue
        evaluations.note(connection, job, "EvaluationAlarm", f"evaluation {last.number} of {last.what}: {reason}", now)
        if (topic := alarm.get("NotificationTopic")) is not None:
            add_notice(connection, job, topic, quality_alarms.notice_of(alarm, job, last, reason, now), now)
        current = training.find_training_job(connection, job.name)
        if alarm.get("Action") == quality_alarms.STOP and current is not None and not current.status.ended:
            evaluations.note(connection, job, "EarlyStopping", f"the job is stopped, since {reason}", now)
            training.move_training_job(connection, job.name, lambda it: transitions.request_stop(it, now))


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Tell a machine whose evaluation is gone that it must end."""
    try:
        yield
    except EvaluationMissing as error:
        raise ReportRefused(str(error)) from error
