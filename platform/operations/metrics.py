"""GetTrainingMetrics: the numbers that a training job's log said, one by one or summed up by periods."""

from __future__ import annotations

from sqlalchemy import Connection

from raymaker.platform.database import metrics, training
from raymaker.platform.database.metrics import MetricQuery
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.naming import TRAINING_JOB, as_time, epoch_s, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation

DEFAULT_PAGE_COUNT = 1000
MOST_PERIODS = 10_000


@operation("GetTrainingMetrics")
def get_training_metrics(context: Context, request: Request) -> Answer:
    """Tell a job's numbers, oldest first: a page at a time, or summed up."""
    name = request["TrainingJobName"]
    since, until = epoch_s(request.get("StartTime")), epoch_s(request.get("EndTime"))
    query = MetricQuery(name, request.get("MetricName"), since, until, request.get("Source"))
    with context.database.reading() as connection:
        if training.find_training_job(connection, name) is None:
            raise not_found(context, TRAINING_JOB, name)
        if "PeriodInSeconds" in request or "MaxPoints" in request:
            return {"Metrics": _sum_up(connection, query, request)}
        limit_count = request.get("MaxResults", DEFAULT_PAGE_COUNT)
        found, token = metrics.list_metrics(connection, query, limit_count, request.get("NextToken"))
    return {
        "Metrics": [
            {
                "MetricName": metric.name,
                "Value": metric.value,
                "Timestamp": as_time(metric.time),
                "Step": metric.step,
                "Rank": metric.rank,
                "Source": metric.source,
            }
            for metric in found
        ],
        "NextToken": token,
    }


def _sum_up(connection: Connection, query: MetricQuery, request: Request) -> list[Answer]:
    for field in ("NextToken", "MaxResults"):
        if field in request:
            raise ValidationException(f"{field} does not go with PeriodInSeconds or MaxPoints: leave it out")
    if "PeriodInSeconds" in request and "MaxPoints" in request:
        raise ValidationException("PeriodInSeconds and MaxPoints both say how long a period is: leave one of them out")
    said = metrics.time_range(connection, query)
    if said is None:
        return []
    start, period_s = _periods(said, query, request)
    return [
        {
            "MetricName": found.name,
            "Timestamp": as_time(found.time),
            "Value": found.mean,
            "Minimum": found.least,
            "Maximum": found.most,
            "SampleCount": found.count,
        }
        for found in metrics.sum_up(connection, query, start, period_s)
    ]


def _periods(said: tuple[float, float], query: MetricQuery, request: Request) -> tuple[float, float]:
    """When the first period begins, and how long each is: the last number lies within the last of them."""
    first, last = said
    if "MaxPoints" in request:
        return first, (last - first) / request["MaxPoints"] * (1 + 1e-9) or 1.0
    start, period_s = query.since if query.since is not None else first, request["PeriodInSeconds"]
    if (count := int((last - start) / period_s) + 1) > MOST_PERIODS:
        raise ValidationException(
            f"PeriodInSeconds {period_s:g} makes {count} periods, and {MOST_PERIODS} are the most: "
            "choose longer ones, or a shorter time"
        )
    return start, period_s
