"""Evaluations in the database: plain queries within a transaction, and moves that are loaded, made and written as one.

What a legal move is stands in `evaluating/evaluations.py`. An evaluation's news are events of its job.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select, update

from raymaker.platform.comparing.algorithms import is_comparison
from raymaker.platform.database.events import insert_event
from raymaker.platform.database.schema import evaluations, training_jobs
from raymaker.platform.database.statements import clean_text, insert_new
from raymaker.platform.errors import ConflictException
from raymaker.platform.evaluating import evaluations as moves
from raymaker.platform.evaluating.evaluations import EvaluationRecord, EvaluationStatus, Trigger, is_scheduled
from raymaker.platform.records import EventRecord, TrainingJobRecord

Move = Callable[[EvaluationRecord], EvaluationRecord]

_IS_UNFINISHED = evaluations.c.status.in_([status for status in EvaluationStatus if not status.ended])


class EvaluationMissing(Exception):
    """There is no such evaluation (any more)."""


def insert_evaluation(
    connection: Connection,
    job: TrainingJobRecord,
    trigger: Trigger,
    config: dict[str, Any],
    *,
    now: float,
    checkpoint: str | None = None,
    checkpoint_at: float | None = None,
) -> EvaluationRecord:
    """Write a new evaluation with the next number of its job. Raises ConflictException where another was as fast."""
    taken = select(func.max(evaluations.c.number)).where(evaluations.c.job_name == job.name)
    number = (connection.execute(taken).scalar_one_or_none() or 0) + 1
    record = EvaluationRecord(job.name, number, config, trigger, now, checkpoint, checkpoint_at)
    if insert_new(connection, evaluations, [_to_row(record)]) != 1:
        raise ConflictException(f"Another evaluation of {job.name} began at this moment. Try again.")
    return record


def make_final_evaluation(connection: Connection, job: TrainingJobRecord, now: float) -> None:
    """Have the model of a job that has just ended evaluated, where the job is to be. A comparison's was already."""
    if job.has_model and is_scheduled(job.request) and not is_comparison(job.request):
        insert_evaluation(connection, job, Trigger.END, job.request["EvaluationConfig"], now=now)


def find_evaluation(
    connection: Connection, job_name: str, number: int, *, lock: bool = False
) -> EvaluationRecord | None:
    """Read one evaluation; with `lock`, nobody else changes it before the transaction ends."""
    statement = select(evaluations).where(evaluations.c.job_name == job_name, evaluations.c.number == number)
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().one_or_none()
    return _from_row(row) if row is not None else None


def list_evaluations(
    connection: Connection,
    job_name: str,
    *,
    after_number: int = 0,
    limit_count: int | None = None,
    status: str | None = None,
) -> list[EvaluationRecord]:
    """Read a job's evaluations in the order of their numbers, those after one."""
    columns = evaluations.c
    statement = select(evaluations).where(columns.job_name == job_name, columns.number > after_number)
    if status is not None:
        statement = statement.where(columns.status == status)
    rows = connection.execute(statement.order_by(columns.number).limit(limit_count)).mappings()
    return [_from_row(row) for row in rows]


def last_evaluation(
    connection: Connection, job_name: str, status: EvaluationStatus | None = None
) -> EvaluationRecord | None:
    """Read a job's latest evaluation, of a status where one is given."""
    statement = select(evaluations).where(evaluations.c.job_name == job_name)
    if status is not None:
        statement = statement.where(evaluations.c.status == status)
    row = connection.execute(statement.order_by(evaluations.c.number.desc()).limit(1)).mappings().one_or_none()
    return _from_row(row) if row is not None else None


def last_checkpoint_at(connection: Connection, job_name: str) -> float:
    """When the newest checkpoint was written that a job has an evaluation of; minus infinity where there is none."""
    newest = select(func.max(evaluations.c.checkpoint_at)).where(evaluations.c.job_name == job_name)
    found: float | None = connection.execute(newest).scalar_one()
    return -math.inf if found is None else found


def list_unfinished(connection: Connection) -> list[EvaluationRecord]:
    """Read all evaluations that have not ended, in the order in which they came."""
    order = (evaluations.c.created_at, evaluations.c.job_name, evaluations.c.number)
    rows = connection.execute(select(evaluations).where(_IS_UNFINISHED).order_by(*order))
    return [_from_row(row) for row in rows.mappings()]


def move_evaluation(connection: Connection, job_name: str, number: int, move: Move) -> EvaluationRecord:
    """Load an evaluation, move it, write it where that changed it, and note what is news. Raises EvaluationMissing."""
    record = find_evaluation(connection, job_name, number, lock=True)
    if record is None:
        raise EvaluationMissing(f"there is no evaluation {number} of {job_name}")
    moved = move(record)
    if moved == record:
        return record
    saved = dataclasses.replace(moved, version=record.version + 1)
    guard = (evaluations.c.job_name == job_name) & (evaluations.c.number == number)
    guard &= evaluations.c.version == record.version
    if connection.execute(update(evaluations).where(guard).values(_to_row(saved))).rowcount != 1:
        raise ConflictException(f"Evaluation {number} of {job_name} was changed by somebody else meanwhile. Try again.")
    job = select(training_jobs.c.arn, training_jobs.c.attempt).where(training_jobs.c.name == job_name)
    arn, attempt = connection.execute(job).one()
    for kind, message in moves.news(record, moved):
        time = moved.ended_at or moved.started_at or moved.created_at
        insert_event(connection, EventRecord(arn, time, kind, message, attempt))
    return saved


def note(connection: Connection, job: TrainingJobRecord, kind: str, message: str, now: float) -> None:
    """Note what happened around a job's evaluations."""
    insert_event(connection, EventRecord(job.arn, now, kind, message, job.attempt))


def _to_row(record: EvaluationRecord) -> dict[str, Any]:
    row = dataclasses.asdict(record)
    row["message"] = clean_text(record.message)
    row["failure_reason"] = clean_text(record.failure_reason) if record.failure_reason is not None else None
    return row


def _from_row(row: RowMapping) -> EvaluationRecord:
    states = {"status": EvaluationStatus(row["status"]), "trigger": Trigger(row["trigger"])}
    return EvaluationRecord(**{**row, **states})
