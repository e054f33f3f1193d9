"""The place where a gang's machines meet."""

from __future__ import annotations

from raymaker.actors.board import Board


def test_nobody_gets_an_answer_before_all_have_come_and_then_all_get_the_same_in_machine_order() -> None:
    board = Board()
    board.begin(1, 2)
    assert board.gather(1, "data", 1, "b") is None
    assert board.gather(1, "data", 0, "a") == ["a", "b"]
    assert board.gather(1, "data", 1, "b") == ["a", "b"]


def test_asking_again_is_not_coming_twice() -> None:
    board = Board()
    board.begin(1, 2)
    assert board.gather(1, "data", 1, "b") is None
    assert board.gather(1, "data", 1, "b") is None
    assert not board.has_gathered("data")


def test_a_later_start_wipes_out_what_an_earlier_one_left_and_hears_no_more_of_it() -> None:
    board = Board()
    board.begin(1, 1)
    board.gather(1, "data", 0, "old")
    board.raise_alarm(1)
    board.begin(2, 1)
    assert not board.has_gathered("data")
    assert board.state(2) == (False, False)
    board.raise_alarm(1)
    assert board.gather(1, "data", 0, "late") is None
    assert board.state(2) == (False, False)
    assert board.latest_start == 2


def test_machines_of_one_start_may_begin_it_one_after_the_other() -> None:
    board = Board()
    board.begin(3, 2)
    board.gather(3, "data", 0, "a")
    board.begin(3, 2)
    assert board.gather(3, "data", 1, "b") == ["a", "b"]


def test_an_alarm_is_heard_by_all_of_its_start() -> None:
    board = Board()
    board.begin(1, 2)
    board.raise_alarm(1)
    assert board.state(1) == (False, True)


def test_a_wish_to_stop_outlives_a_start() -> None:
    board = Board()
    board.begin(1, 1)
    board.request_stop()
    board.begin(2, 1)
    assert board.state(2) == (True, False)


def test_a_board_that_nobody_comes_to_is_silent() -> None:
    now = 100.0
    board = Board(lambda: now)
    board.begin(1, 1)
    now = 104.0
    assert board.silent_s() == 4.0
    board.state(1)
    assert board.silent_s() == 0.0


def test_what_was_offered_is_there_for_all_and_may_be_offered_anew() -> None:
    board = Board()
    board.begin(1, 2)
    assert not board.has_come(1, "heard")
    assert board.offer(1, "heard", 1, "no") == {1: "no"}
    assert board.has_come(1, "heard")
    assert board.offer(1, "heard", 0, "yes") == {0: "yes", 1: "no"}
    assert board.offer(1, "heard", 1, "yes") == {0: "yes", 1: "yes"}
    board.begin(2, 2)
    assert board.offer(1, "heard", 1, "late") == {}
    assert not board.has_come(2, "heard")
    assert not board.has_come(1, "heard")


def test_the_latest_change_that_was_wanted_outlives_a_start() -> None:
    board = Board()
    board.begin(1, 1)
    board.want(2)
    board.want(1)
    board.begin(2, 1)
    assert board.wanted_revision == 2
