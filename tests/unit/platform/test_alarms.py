"""Alarms of a rollout: what their names say, and when they fire."""

from __future__ import annotations

import pytest

from raymaker.actors.reports import FleetSignals
from raymaker.platform.hosting.alarms import FEWEST_ANSWERS, Alarm, parse_alarm


def signals(count: int = 100, **changes: float) -> FleetSignals:
    calm = {"client_errors": 0, "server_errors": 0, "p50_s": 0.01, "p99_s": 0.02}
    return FleetSignals(count, **{**calm, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("5XXErrorRate > 0.05", Alarm("5XXErrorRate", 0.05)),
        (" 4XXErrorRate>0 ", Alarm("4XXErrorRate", 0.0)),
        ("LatencyP50InMilliseconds > 20", Alarm("LatencyP50InMilliseconds", 20.0)),
        ("LatencyP99InMilliseconds >12.5", Alarm("LatencyP99InMilliseconds", 12.5)),
    ],
)
def test_an_alarms_name_says_its_condition(name, expected):
    assert parse_alarm(name) == expected


@pytest.mark.parametrize("name", ["", "my-alarm", "5XXErrorRate", "5XXErrorRate < 1", "5XXErrorRate > -1", "Rate > 1"])
def test_any_other_name_is_refused_with_an_example(name):
    with pytest.raises(ValueError, match="as in '5XXErrorRate > 0.05'"):
        parse_alarm(name)


@pytest.mark.parametrize(
    ("name", "changes", "fires"),
    [
        ("5XXErrorRate > 0.05", {"server_errors": 5}, False),
        ("5XXErrorRate > 0.05", {"server_errors": 6}, True),
        ("5XXErrorRate > 0.05", {"client_errors": 100}, False),
        ("4XXErrorRate > 0.5", {"client_errors": 51}, True),
        ("4XXErrorRate > 0.5", {"server_errors": 100}, False),
        ("LatencyP50InMilliseconds > 10", {"p50_s": 0.01}, False),
        ("LatencyP50InMilliseconds > 10", {"p50_s": 0.011}, True),
        ("LatencyP99InMilliseconds > 20", {"p50_s": 1.0}, False),
        ("LatencyP99InMilliseconds > 20", {"p99_s": 0.021}, True),
    ],
)
def test_an_alarm_fires_above_its_threshold(name, changes, fires):
    assert (parse_alarm(name).reason([signals(**changes)]) is not None) is fires


def test_what_several_routers_saw_counts_together():
    alarm = parse_alarm("5XXErrorRate > 0.1")
    assert alarm.reason([signals(90), signals(10, server_errors=10)]) is None
    assert alarm.reason([signals(90, server_errors=1), signals(10, server_errors=10)]) == (
        "alarm 5XXErrorRate > 0.1 fired: 0.11 over the last 100 requests of a minute"
    )
    assert parse_alarm("LatencyP99InMilliseconds > 90").reason([signals(), signals(p99_s=0.1)]) is not None


def test_a_few_answers_say_nothing_yet():
    alarm = parse_alarm("5XXErrorRate > 0")
    few = FEWEST_ANSWERS - 1
    assert alarm.reason([signals(few, server_errors=few)]) is None
    assert alarm.reason([]) is None
    assert alarm.reason([signals(few, server_errors=few), signals(1)]) is not None
