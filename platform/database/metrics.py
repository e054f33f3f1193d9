"""Metrics: the numbers that training jobs said, in the order they said them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, RowMapping, and_, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from raymaker.actors.reports import Metric, Source
from raymaker.platform.database.engine import Database
from raymaker.platform.database.schema import metrics, training_jobs
from raymaker.platform.database.statements import clean_text, fetch_rows_after, insert_many
from raymaker.platform.records import MetricPeriod, MetricRecord


def insert_metrics(database: Database, job_name: str, attempt: int, found: Sequence[Metric]) -> None:
    """Keep numbers of an attempt. Numbers that are there already, and those of a job that is gone, are dropped."""
    with database.transaction() as connection:
        known = select(training_jobs.c.name).where(training_jobs.c.name == job_name)
        if connection.execute(known.with_for_update(read=True, key_share=True)).first() is not None:
            add_metrics(connection, job_name, attempt, found)


def add_metrics(connection: Connection, job_name: str, attempt: int, found: Sequence[Metric]) -> None:
    """Keep numbers of an attempt at a job that is known to be there."""
    rows = [
        {
            "job_name": job_name,
            "attempt": attempt,
            "name": clean_text(metric.name),
            "time": metric.time,
            "value": None if math.isnan(metric.value) else metric.value,
            "step": metric.step,
            "rank": metric.rank,
            "source": metric.source,
        }
        for metric in found
    ]
    insert_many(connection, metrics, rows)


@dataclass(frozen=True)
class MetricQuery:
    """Which numbers to read: a job's, of one metric or of all, and of one source or of all.

    `since` and `until` are epoch seconds; what was said at `until` is left out.
    """

    job_name: str
    metric_name: str | None = None
    since: float | None = None
    until: float | None = None
    source: str | None = None

    @property
    def condition(self) -> ColumnElement[bool]:
        """The rows that it means."""
        columns = metrics.c
        bounds = [
            columns.name == self.metric_name if self.metric_name is not None else None,
            columns.source == self.source if self.source is not None else None,
            columns.time >= self.since if self.since is not None else None,
            columns.time < self.until if self.until is not None else None,
        ]
        return and_(columns.job_name == self.job_name, *(bound for bound in bounds if bound is not None))


class whole(GenericFunction[int]):  # noqa: N801 - named like the function in SQL
    """The whole part of a number that is not negative."""

    type = BigInteger()
    inherit_cache = True


@compiles(whole)
def _compile_whole(element: whole, compiler: SQLCompiler, **options: Any) -> str:
    """PostgreSQL's CAST rounds; SQLite need not have FLOOR."""
    function = "FLOOR(%s)" if compiler.dialect.name == "postgresql" else "CAST(%s AS INTEGER)"
    return function % compiler.process(element.clauses, **options)


def time_range(connection: Connection, query: MetricQuery) -> tuple[float, float] | None:
    """When the first and the last of some numbers were said; None where there are none."""
    row = connection.execute(select(func.min(metrics.c.time), func.max(metrics.c.time)).where(query.condition)).one()
    return None if row[0] is None else (row[0], row[1])


def sum_up(connection: Connection, query: MetricQuery, start: float, period_s: float) -> list[MetricPeriod]:
    """Sum numbers up by metric and period, oldest first. Periods follow on `start`, before which none was said."""
    columns = metrics.c
    number = whole((columns.time - start) / period_s).label("number")
    value = columns.value
    sums = (func.avg(value), func.min(value), func.max(value), func.count())
    statement = select(columns.name, number, *sums).where(query.condition).group_by(columns.name, number)
    rows = connection.execute(statement.order_by(number, columns.name))
    return [
        MetricPeriod(name, start + int(at) * period_s, _number(mean), _number(least), _number(most), count)
        for name, at, mean, least, most, count in rows
    ]


def list_metrics(
    connection: Connection, query: MetricQuery, limit_count: int, token: str | None
) -> tuple[list[MetricRecord], str | None]:
    """Read one page of numbers, oldest first. Raises ValidationException for a bad token."""
    statement = select(metrics).where(query.condition)
    page = fetch_rows_after(connection, statement, metrics, limit_count, token)
    return [_from_row(row) for row in page.rows], page.next_token


def final_metrics(connection: Connection, job_name: str, *, with_use: bool = False) -> list[MetricRecord]:
    """Read the last number of each of a job's metrics; `with_use`, of what its containers use too."""
    mine = metrics.c.job_name == job_name if with_use else _its_own(job_name)
    last = select(func.max(metrics.c.id)).where(mine).group_by(metrics.c.name)
    rows = connection.execute(select(metrics).where(metrics.c.id.in_(last)).order_by(metrics.c.name)).mappings()
    return [_from_row(row) for row in rows]


def first_metrics(connection: Connection, job_name: str, since: float) -> list[MetricRecord]:
    """Read the first number of each of a job's metrics that was said at a time (epoch seconds) or later.

    What its containers use is not among them.
    """
    said = _its_own(job_name) & (metrics.c.time >= since)
    first = select(func.min(metrics.c.id)).where(said).group_by(metrics.c.name)
    rows = connection.execute(select(metrics).where(metrics.c.id.in_(first)).order_by(metrics.c.name)).mappings()
    return [_from_row(row) for row in rows]


def _its_own(job_name: str) -> ColumnElement[bool]:
    """What a job said, or was judged to be: not what its containers use."""
    return (metrics.c.job_name == job_name) & (metrics.c.source != Source.RESOURCES)


def _from_row(row: RowMapping) -> MetricRecord:
    return MetricRecord(
        row["job_name"],
        row["attempt"],
        row["name"],
        _number(row["value"]),
        row["time"],
        row["step"],
        row["rank"],
        Source(row["source"]),
    )


def _number(value: float | None) -> float:
    """A number as it is kept: NaN is null there."""
    return math.nan if value is None else value
