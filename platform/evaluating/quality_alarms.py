"""What evaluations set off: a metric beyond a bound, or one that no longer gets better. Pure."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any

from raymaker.platform.evaluating.evaluations import EvaluationRecord
from raymaker.platform.records import TrainingJobRecord
from raymaker.serving.evaluation.metric_names import is_more_better

NOTIFY, STOP = "Notify", "StopTrainingJob"


def fired(alarm: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str | None:
    """Say why an alarm fires after the last of some evaluations, oldest first; None where it does not.

    `history` holds the metrics of each. Evaluations that do not tell the alarm's metric are passed over.
    """
    name = alarm["MetricName"]
    values = [metrics[name] for metrics in history if name in metrics]
    if not values or name not in history[-1]:
        return None
    last = values[-1]
    if "LessThan" in alarm and last < alarm["LessThan"]:
        return f"{name} is {last:.4g}, less than {alarm['LessThan']:g}"
    if "GreaterThan" in alarm and last > alarm["GreaterThan"]:
        return f"{name} is {last:.4g}, greater than {alarm['GreaterThan']:g}"
    if "Patience" in alarm:
        return _has_stalled(alarm, values)
    return None


def notice_of(
    alarm: Mapping[str, Any], job: TrainingJobRecord, evaluation: EvaluationRecord, reason: str, now: float
) -> dict[str, Any]:
    """Say in JSON what a webhook hears of an alarm that fired after an evaluation."""
    value = evaluation.metrics[alarm["MetricName"]]
    return {
        "eventName": "EvaluationAlarm",
        "eventTime": dt.datetime.fromtimestamp(now, dt.UTC).isoformat(timespec="milliseconds"),
        "trainingJobName": job.name,
        "trainingJobArn": job.arn,
        "evaluationNumber": evaluation.number,
        "checkpointName": evaluation.checkpoint,
        "metricName": alarm["MetricName"],
        "metricValue": value if math.isfinite(value) else str(value),
        "reason": reason,
        "action": alarm.get("Action", NOTIFY),
    }


def _has_stalled(alarm: Mapping[str, Any], values: Sequence[float]) -> str | None:
    """Say since how many evaluations a metric has not become better than the best before them."""
    patience, least = alarm["Patience"], alarm.get("MinimumChange", 0.0)
    if len(values) <= patience:
        return None
    sign = 1.0 if is_more_better(alarm["MetricName"]) else -1.0
    before = max(sign * value for value in values[:-patience])
    since = max(sign * value for value in values[-patience:])
    if since - before > least:
        return None
    best, latest = sign * before, values[-1]
    return (
        f"{alarm['MetricName']} was {best:.4g} at best and has not improved in {patience} evaluations: {latest:.4g} now"
    )
