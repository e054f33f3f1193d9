"""How many replicas a variant has: always as many, or as many as its load asks for, within bounds. Pure.

Serve's own autoscaler counts and decides. That none at all are there while nobody asks is not its matter: it would keep
an application for each, so the platform takes the whole endpoint away and makes it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LOOK_BACK_S = 12.0
"""How much of the past the load is averaged over: several times what replicas take to tell of it, and more than the
10 s that Serve is to refuse below in a later release."""
PUSH_INTERVAL_S = 2.0
"""How often replicas and handles tell Serve of their load."""


@dataclass(frozen=True)
class ScalingSpec:
    """The bounds between which a variant's replicas are counted by its load.

    `min_count` 0: while nobody asks there may be none. Until then there is one at least.
    """

    min_count: int
    max_count: int
    target_concurrency: float = 2.0
    """How many requests each replica is to work on at once."""
    scale_out_delay_s: float = 5.0
    scale_in_delay_s: float = 300.0
    idle_s: float = 300.0
    """How long nobody must have asked before there may be none."""


def replica_options(count: int, scaling: ScalingSpec | None) -> dict[str, Any]:
    """Say in a Serve deployment's words how many replicas there are; with `scaling` it begins with `count`."""
    if scaling is None:
        return {"num_replicas": count}
    least = max(1, scaling.min_count)
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": scaling.max_count,
            "initial_replicas": min(max(least, count), scaling.max_count),
            "target_ongoing_requests": scaling.target_concurrency,
            "upscale_delay_s": scaling.scale_out_delay_s,
            "downscale_delay_s": scaling.scale_in_delay_s,
            "look_back_period_s": LOOK_BACK_S,
        }
    }
