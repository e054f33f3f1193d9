"""Changes of training jobs in the database: asked for, told of by machines, and measured by the numbers after them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection

from raymaker.actors.reports import ReportRefused, UpdateReport
from raymaker.platform.changing import job_updates
from raymaker.platform.changing.update_record import JobUpdate
from raymaker.platform.database.engine import Database
from raymaker.platform.database.metrics import final_metrics, first_metrics
from raymaker.platform.database.training import JobMissing, find_training_job, move_training_job
from raymaker.platform.records import TrainingJobRecord


def request_update(
    connection: Connection, name: str, changes: Mapping[str, Any], requested_by: str, now: float
) -> TrainingJobRecord:
    """Accept a change of a job, with its numbers so far. Raises JobMissing, ChangeUnderWay, IllegalMove."""
    before = {metric.name: metric.value for metric in final_metrics(connection, name)}
    _measure_all(connection, name, now)
    return move_training_job(
        connection, name, lambda job: job_updates.request_update(job, changes, requested_by, before, now)
    )


def apply_update_report(database: Database, report: UpdateReport, now: float) -> bool:
    """Take what machines tell of a change; False where it is no longer wanted. Durable when it returns.

    Raises ReportRefused where the attempt must stop: a later one is the job's, or the job has ended or was deleted.
    """
    may_go_on = False

    def move(record: TrainingJobRecord) -> TrainingJobRecord:
        nonlocal may_go_on
        require_current(record, report.attempt)
        moved, may_go_on = job_updates.apply_update_report(record, report, now)
        return moved

    try:
        with database.transaction() as connection:
            move_training_job(connection, report.job_name, move)
    except JobMissing as error:
        raise ReportRefused(f"{error}: it was deleted") from error
    return may_go_on


def current_job(database: Database, name: str, attempt: int) -> TrainingJobRecord:
    """Read a job for one of its attempts. Raises ReportRefused where the attempt is no longer the job's."""
    with database.reading() as connection:
        record = find_training_job(connection, name)
    if record is None:
        raise ReportRefused(f"there is no training job {name}: it was deleted")
    require_current(record, attempt)
    return record


def require_current(record: TrainingJobRecord, attempt: int) -> None:
    """Raise ReportRefused where an attempt is not the job's, or the job has ended."""
    if attempt != record.attempt or record.status.ended:
        raise ReportRefused(
            f"attempt {attempt} of training job {record.name} is over: the job is {record.status}, attempt "
            f"{record.attempt}"
        )


def measure(database: Database, job: TrainingJobRecord, now: float) -> None:
    """Note the first numbers after a job's changes, once each metric that there was before has one."""
    for update in job_updates.awaiting_metrics(job):
        with database.reading() as connection:
            found = _numbers_after(connection, job.name, update, now)
        if found and update.metrics_before.keys() <= found.keys():
            with database.transaction() as connection:
                _measure(connection, job.name, update, found, now)


def measure_last(database: Database, name: str, now: float) -> None:
    """Note the numbers after a job's changes as far as they came: no more will."""
    with database.transaction() as connection:
        _measure_all(connection, name, now)


def _measure_all(connection: Connection, name: str, now: float) -> None:
    record = find_training_job(connection, name)
    for update in job_updates.awaiting_metrics(record) if record is not None else []:
        _measure(connection, name, update, _numbers_after(connection, name, update, now), now)


def _measure(connection: Connection, name: str, update: JobUpdate, found: Mapping[str, float], now: float) -> None:
    move = partial(job_updates.measure, revision=update.revision, metrics=found, now=now)
    move_training_job(connection, name, move)


def _numbers_after(connection: Connection, name: str, update: JobUpdate, now: float) -> dict[str, float]:
    return {metric.name: metric.value for metric in first_metrics(connection, name, update.settled_at or now)}
