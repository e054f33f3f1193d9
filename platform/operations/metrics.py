"""GetTrainingMetrics: the numbers that a training job's log said."""

from __future__ import annotations

from raymaker.platform.database import metrics, training
from raymaker.platform.operations.naming import TRAINING_JOB, as_time, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation

DEFAULT_PAGE_COUNT = 1000


@operation("GetTrainingMetrics")
def get_training_metrics(context: Context, request: Request) -> Answer:
    """Tell a job's numbers, oldest first, a page at a time."""
    name, limit_count = request["TrainingJobName"], request.get("MaxResults", DEFAULT_PAGE_COUNT)
    with context.database.reading() as connection:
        if training.find_training_job(connection, name) is None:
            raise not_found(context, TRAINING_JOB, name)
        found, token = metrics.list_metrics(
            connection, name, request.get("MetricName"), limit_count, request.get("NextToken")
        )
    return {
        "Metrics": [
            {"MetricName": metric.name, "Value": metric.value, "Timestamp": as_time(metric.time)} for metric in found
        ],
        "NextToken": token,
    }
