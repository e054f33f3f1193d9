"""The alarms of a rollout: conditions on how the new fleets answer. Pure.

SageMaker's alarms live in CloudWatch, which is not here. An alarm's name says its condition instead, such as
`5XXErrorRate > 0.05`, so that requests of boto3 have it without an extension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from raymaker.actors.reports import FleetSignals

FEWEST_ANSWERS = 10
"""An alarm is silent while the new fleets have answered fewer requests than this within the last minute."""
METRICS = ("5XXErrorRate", "4XXErrorRate", "LatencyP50InMilliseconds", "LatencyP99InMilliseconds")
_NAME = re.compile(rf"\s*({'|'.join(METRICS)})\s*>\s*(\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Alarm:
    """Fires while `metric` of the last minute is above `threshold`: a share of 1, or milliseconds."""

    metric: str
    threshold: float

    def reason(self, signals: Sequence[FleetSignals]) -> str | None:
        """Say why it fires, None where it does not. `signals` are those of the new fleets, of all that ask them."""
        count = sum(each.count for each in signals)
        if count < FEWEST_ANSWERS:
            return None
        value = self._value(signals, count)
        if value <= self.threshold:
            return None
        return f"alarm {self.metric} > {self.threshold:g} fired: {value:.3g} over the last {count} requests of a minute"

    def _value(self, signals: Sequence[FleetSignals], count: int) -> float:
        match self.metric:
            case "5XXErrorRate":
                return sum(each.server_errors for each in signals) / count
            case "4XXErrorRate":
                return sum(each.client_errors for each in signals) / count
            case "LatencyP50InMilliseconds":
                return 1000 * sum(each.p50_s * each.count for each in signals) / count
            case _:
                return 1000 * max(each.p99_s for each in signals)


def parse_alarm(name: str) -> Alarm:
    """Read an alarm's condition out of its name. Raises ValueError where there is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(
            f"{name!r} is no condition: there is no CloudWatch here, and an alarm's name says when it fires, "
            f"as in '5XXErrorRate > 0.05'. Metrics: {', '.join(METRICS)}"
        )
    return Alarm(found[1], float(found[2]))
