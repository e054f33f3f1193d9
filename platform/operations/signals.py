"""The load of an endpoint as its replicas told of it within the last minute, and as DescribeEndpoint tells it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raymaker.actors.reports import Activity, Latency
from raymaker.serving.activity import WINDOW_S


def describe_load(told: Sequence[Activity], now: float) -> dict[str, Any]:
    """Tell how many requests are under way; nothing where nobody has told anything lately."""
    recent = _recent(told, now)
    return {"PendingRequests": sum(each.pending_count for each in recent)} if recent else {}


def describe_variant(variant: str, told: Sequence[Activity], now: float) -> dict[str, Any]:
    """Tell how a variant answered; nothing where it did not lately.

    Of several replicas of the front the median is the mean of theirs by their answers, the tail that of the slowest.
    """
    seen = [each.latencies[variant] for each in _recent(told, now) if variant in each.latencies]
    count = sum(latency.count for latency in seen)
    return {"Signals": _signals(seen, count)} if count else {}


def _signals(seen: Sequence[Latency], count: int) -> dict[str, Any]:
    return {
        "RequestsInLastMinute": count,
        "LatencyP50InMilliseconds": 1000 * sum(latency.p50_s * latency.count for latency in seen) / count,
        "LatencyP99InMilliseconds": 1000 * max(latency.p99_s for latency in seen),
    }


def _recent(told: Sequence[Activity], now: float) -> list[Activity]:
    return [each for each in told if now - each.time <= WINDOW_S]
