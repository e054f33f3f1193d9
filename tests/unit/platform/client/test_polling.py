"""Waiting: how often to look, and how long to bear with a platform that is away."""

from __future__ import annotations

import itertools

import pytest

from raymaker.platform.client.errors import PlatformUnreachable, WaitTimeout
from raymaker.platform.client.polling import PATIENCE_S, Clock, look_until, pause_s


class FakeTime:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.clock = Clock(lambda: self.now_s, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_pauses_are_short_at_first_and_never_longer_than_two_seconds() -> None:
    assert [pause_s(elapsed) for elapsed in (0, 5, 1000)] == [0.1, 0.5, 2.0]


def test_it_looks_until_the_end_and_gives_what_it_saw_last() -> None:
    numbers = itertools.count()
    assert look_until(lambda: next(numbers), lambda seen: seen == 7, what="x", clock=FakeTime().clock) == 7


def test_the_caller_s_limit_is_kept_to_the_second() -> None:
    fake = FakeTime()
    with pytest.raises(WaitTimeout, match="x has not ended within 33 s"):
        look_until(lambda: 0, bool, what="x has not ended", timeout_s=33, clock=fake.clock)
    assert fake.now_s == pytest.approx(133)


def test_a_platform_that_is_away_for_long_ends_the_wait() -> None:
    fake = FakeTime()

    def look() -> int:
        raise PlatformUnreachable("away")

    with pytest.raises(PlatformUnreachable, match="away"):
        look_until(look, bool, what="x", clock=fake.clock)
    assert fake.now_s > 100 + PATIENCE_S


def test_every_answer_makes_patience_new() -> None:
    fake = FakeTime()
    start = fake.now_s

    def look() -> bool:
        elapsed = fake.now_s - start
        if elapsed % 60 < 50 and elapsed > 1:
            raise PlatformUnreachable("away")
        return elapsed > 600

    assert look_until(look, bool, what="x", clock=fake.clock)
