"""What a replica tells of its load, and how often."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raymaker.actors.reports import Activity, FleetSignals
from raymaker.serving.activity import ActivityTeller, Load, report_period_s


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def teller(load: Load, pending: Callable[[], int], said: list[Activity], idle_s: float | None) -> ActivityTeller:
    return ActivityTeller(load, pending, said.append, endpoint_name="e", replica_id="r", idle_s=idle_s)


def test_latencies_are_those_of_the_last_minute_by_variant() -> None:
    clock = Clock()
    load = Load(clock)
    load.answered("old", clock.now - 9)
    clock.now += 50
    for hundredths in range(1, 101):
        load.answered("a", clock.now - hundredths / 100)
    clock.now += 20
    (found,) = load.latencies().items()
    assert (found[0], found[1].count) == ("a", 100)
    assert (found[1].p50_s, found[1].p99_s) == pytest.approx((0.5, 0.99))


def test_fleets_are_told_of_with_what_went_wrong_in_the_last_minute() -> None:
    clock = Clock()
    load = Load(clock)
    load.fleet_answered("a@1", load.begin(), 500)
    clock.now += 61
    for status in (200, 404, 500, 503):
        load.fleet_answered("a@2", clock.now - 0.2, status)
    said: list[Activity] = []
    teller(load, lambda: 1, said, None).tell_once()
    assert said[0].fleets == {"a@2": FleetSignals(4, 1, 2, pytest.approx(0.2), pytest.approx(0.2))}


def test_one_that_may_sleep_tells_also_that_nothing_happened_and_any_other_only_what_is_new() -> None:
    for idle_s, expected_count in ((60.0, 3), (None, 2)):
        clock, said = Clock(), list[Activity]()
        load = Load(clock)
        told = teller(load, lambda: 0, said, idle_s)
        told.tell_once()
        told.tell_once()
        clock.now += 5
        load.touch()
        told.tell_once()
        assert len(said) == expected_count
        assert (said[-1].endpoint_name, said[-1].replica_id, said[-1].last_request_at) == ("e", "r", 1005.0)


def test_work_under_way_is_told_again_and_again() -> None:
    said: list[Activity] = []
    told = teller(Load(), lambda: 2, said, None)
    told.tell_once()
    told.tell_once()
    assert [each.pending_count for each in said] == [2, 2]


@pytest.mark.parametrize(("idle_s", "expected"), [(None, 10.0), (300.0, 10.0), (8.0, 2.0), (0.1, 0.5)])
def test_it_is_told_a_few_times_within_the_time_after_which_it_may_sleep(idle_s: float | None, expected: float) -> None:
    assert report_period_s(idle_s) == expected
