"""Metrics: the numbers that training jobs said, in the order they said them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, func, select

from raymaker.actors.reports import Metric
from raymaker.platform.database.engine import Database
from raymaker.platform.database.schema import metrics, training_jobs
from raymaker.platform.database.statements import clean_text, fetch_rows_after, insert_new
from raymaker.platform.records import MetricRecord


def insert_metrics(database: Database, job_name: str, attempt: int, found: Sequence[Metric]) -> None:
    """Keep numbers of an attempt. Numbers that are there already, and those of a job that is gone, are dropped."""
    rows = [
        {
            "job_name": job_name,
            "attempt": attempt,
            "name": clean_text(metric.name),
            "time": metric.time,
            "value": None if math.isnan(metric.value) else metric.value,
        }
        for metric in found
    ]
    with database.transaction() as connection:
        known = select(training_jobs.c.name).where(training_jobs.c.name == job_name)
        if connection.execute(known.with_for_update(read=True, key_share=True)).first() is not None:
            insert_new(connection, metrics, rows)


def list_metrics(
    connection: Connection, job_name: str, metric_name: str | None, limit_count: int, token: str | None
) -> tuple[list[MetricRecord], str | None]:
    """Read one page of a job's numbers, oldest first. Raises ValidationException for a bad token."""
    statement = select(metrics).where(metrics.c.job_name == job_name)
    if metric_name is not None:
        statement = statement.where(metrics.c.name == metric_name)
    page = fetch_rows_after(connection, statement, metrics, limit_count, token)
    return [_from_row(row) for row in page.rows], page.next_token


def final_metrics(connection: Connection, job_name: str) -> list[MetricRecord]:
    """Read the last number of each of a job's metrics."""
    last = select(func.max(metrics.c.id)).where(metrics.c.job_name == job_name).group_by(metrics.c.name)
    rows = connection.execute(select(metrics).where(metrics.c.id.in_(last)).order_by(metrics.c.name)).mappings()
    return [_from_row(row) for row in rows]


def _from_row(row: RowMapping) -> MetricRecord:
    value = math.nan if row["value"] is None else row["value"]
    return MetricRecord(row["job_name"], row["attempt"], row["name"], value, row["time"])
