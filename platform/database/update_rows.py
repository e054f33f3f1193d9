"""Changes of a training job as they stand in its row: JSON that every database takes, so without NaN and infinities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from raymaker.platform.changing.update_record import JobUpdate, UpdateStatus
from raymaker.platform.database.statements import clean_text


def update_to_json(update: JobUpdate) -> dict[str, Any]:
    """Write one change."""
    reason = clean_text(update.failure_reason) if update.failure_reason is not None else None
    return {
        **dataclasses.asdict(update),
        "metrics_before": _write_numbers(update.metrics_before),
        "metrics_after": _write_numbers(update.metrics_after),
        "failure_reason": reason,
    }


def update_from_json(row: Mapping[str, Any]) -> JobUpdate:
    """Read one change."""
    return JobUpdate(
        **{
            **row,
            "status": UpdateStatus(row["status"]),
            "summary": tuple(row["summary"]),
            "heard_by": tuple(row["heard_by"]),
            "metrics_before": _read_numbers(row["metrics_before"]),
            "metrics_after": _read_numbers(row["metrics_after"]),
        }
    )


def _write_numbers(metrics: Mapping[str, float] | None) -> dict[str, float | str] | None:
    if metrics is None:
        return None
    return {name: value if math.isfinite(value) else str(value) for name, value in metrics.items()}


def _read_numbers(metrics: Mapping[str, float | str] | None) -> dict[str, float] | None:
    return None if metrics is None else {name: float(value) for name, value in metrics.items()}
