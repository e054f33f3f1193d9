"""Where a job stands in its account's line: training and transform jobs wait in one."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Table, func, select, tuple_

from raymaker.platform.database.schema import training_jobs, transform_jobs
from raymaker.platform.records import SecondaryStatus, TrainingJobRecord, TrainingJobStatus
from raymaker.platform.transforming.transform_jobs import TransformJobRecord


def count_before(connection: Connection, job: TrainingJobRecord | TransformJobRecord) -> int:
    """How many jobs of the same account wait that were made before this one."""
    training = _count(connection, job, training_jobs, training_jobs.c.secondary == SecondaryStatus.PENDING)
    return training + _count(connection, job, transform_jobs, transform_jobs.c.attempt == 0)


def say_where(connection: Connection, job: TrainingJobRecord | TransformJobRecord) -> str:
    """Say where a job that waits stands, '' where it is the first: `, behind 12 of your jobs`."""
    count = count_before(connection, job)
    return f", behind {count} of your jobs" if count else ""


def _count(
    connection: Connection, job: TrainingJobRecord | TransformJobRecord, table: Table, waits: ColumnElement[bool]
) -> int:
    columns = table.c
    in_progress = columns.status == TrainingJobStatus.IN_PROGRESS
    before = tuple_(columns.created_at, columns.name) < tuple_(job.created_at, job.name)
    condition = in_progress & before & waits & (columns.account == job.account)
    return connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
