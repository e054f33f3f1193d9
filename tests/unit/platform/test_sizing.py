"""How many machines wait, and which of them may go."""

from __future__ import annotations

import pytest

from raymaker.platform.pools.sizing import WINDOW_S, Limits, superfluous, wanted_count, wanted_there

NOW = 1000.0
LIMITS = Limits(least=1, most=4, idle_s=300)


@pytest.mark.parametrize(
    ("recent", "nodes", "wanted"),
    [(0, 1, 1), (1, 1, 2), (15, 1, 2), (16, 1, 3), (1000, 1, 4), (60, 4, 2), (61, 2, 4), (0, 0, 1)],
)
def test_more_wait_where_more_jobs_come(recent: int, nodes: int, wanted: int) -> None:
    starts = [NOW - 1] * recent
    assert wanted_count(LIMITS, starts, nodes, NOW) == wanted


@pytest.mark.parametrize(
    ("cpus", "each", "running", "there"),
    [
        (2, 1, 0, 2),
        (2, 1, 1, 1),
        (2, 1, 2, 1),
        (8, 1, 2, 4),
        (8, 4, 0, 2),
        (2, 0.01, 0, 4),
        (2, 0, 0, 4),
        (0, 1, 0, 0),
        (0, 0, 0, 0),
    ],
)
def test_no_more_wait_than_could_run_but_the_least(cpus: float, each: float, running: int, there: int) -> None:
    assert wanted_there(LIMITS, 4, cpus, each, running) == there


def test_starts_of_long_ago_do_not_count() -> None:
    assert wanted_count(LIMITS, [NOW - WINDOW_S - 1] * 100, 1, NOW) == 1


def test_none_waits_where_none_may() -> None:
    assert wanted_count(Limits(0, 0), [NOW] * 10, 1, NOW) == 0
    assert wanted_count(Limits(3, 1), [], 1, NOW) == 1, "the upper limit decides"


def test_one_that_was_not_needed_for_long_goes() -> None:
    idle = {"a": NOW - 301, "b": NOW - 400, "c": NOW - 10}
    assert superfluous(LIMITS, idle, 1, NOW) == ["b", "a"]
    assert superfluous(LIMITS, idle, 2, NOW) == ["b"], "those that were used last stay"
    assert superfluous(LIMITS, idle, 3, NOW) == []


def test_those_above_the_limit_go_at_once() -> None:
    idle = {f"m{number}": NOW - number for number in range(6)}
    assert superfluous(LIMITS, idle, 1, NOW) == ["m5", "m4"]
