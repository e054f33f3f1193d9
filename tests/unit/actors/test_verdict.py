"""What an attempt's end means, all its containers taken together."""

from __future__ import annotations

import pytest

from raymaker.actors.exchange.seam import Failure
from raymaker.actors.runtime.base import ExitStatus
from raymaker.actors.verdict import Ending, Kind, Verdict, find_culprit, judge

WELL = ExitStatus(0)
ERROR = ExitStatus(1)
KILLED = ExitStatus.of_code(137)
CRASHED = ExitStatus.of_code(139)
OUT_OF_MEMORY = ExitStatus.of_code(137, oom_killed=True)


def judged(*endings: Ending, world_size: int = 2, retries_errors: bool = False) -> Verdict:
    return judge(endings, world_size, retries_errors=retries_errors)


def test_all_containers_must_end_well_for_the_attempt_to_be_completed() -> None:
    assert judged(Ending({0: WELL}), Ending({1: WELL})).kind is Kind.COMPLETED
    assert judged(Ending({0: WELL}), Ending({1: ERROR}, {1: "no data"})).kind is Kind.FAILED


def test_a_failure_names_the_container_and_says_its_own_words() -> None:
    verdict = judged(Ending({0: WELL}), Ending({1: ERROR}, {1: "no data"}))
    assert verdict.reason == "AlgorithmError: algo-2 (rank 1 of 2): no data, exit code: 1"


def test_a_lone_container_is_not_given_a_name() -> None:
    assert judged(Ending({0: ERROR}, {0: "no data"}), world_size=1).reason == "AlgorithmError: no data, exit code: 1"


@pytest.mark.parametrize("status", [KILLED, ExitStatus.of_code(143), ExitStatus(1, lost=True)])
def test_a_container_that_was_killed_from_outside_costs_the_attempt_and_not_the_job(status: ExitStatus) -> None:
    verdict = judged(Ending({1: status, 0: ERROR}))
    assert (verdict.kind, verdict.rank) == (Kind.LOST, 1)
    assert "algo-2 (rank 1 of 2): the container did not end by itself" in str(verdict.reason)


@pytest.mark.parametrize("status", [ERROR, CRASHED, OUT_OF_MEMORY])
def test_what_a_container_did_itself_fails_the_job_unless_the_request_has_it_tried_again(status: ExitStatus) -> None:
    ending = Ending({0: status}, {0: "it broke"})
    assert judged(ending).kind is Kind.FAILED
    assert judged(ending, retries_errors=True).kind is Kind.LOST


def test_the_rank_that_the_exchange_blames_is_the_culprit_though_another_ended_first() -> None:
    assert find_culprit({0: ERROR, 2: ERROR, 1: KILLED}, Failure("rank 1 is gone", 1)) == 1


def test_without_a_word_from_the_exchange_a_kill_comes_before_an_error() -> None:
    assert find_culprit({0: ERROR, 1: KILLED}, None) == 1
    assert find_culprit({2: ERROR, 1: ERROR}, None) == 2


def test_a_rank_that_is_blamed_but_ended_well_is_no_culprit() -> None:
    assert find_culprit({1: WELL, 0: ERROR}, Failure("rank 1 has left", 1)) == 0
    assert find_culprit({1: WELL, 0: WELL}, Failure("rank 1 has left", 1)) is None


def test_a_stop_and_a_time_limit_come_before_what_the_containers_made_of_them() -> None:
    assert judged(Ending({0: KILLED}, stopped=True)).kind is Kind.STOPPED
    assert judged(Ending({0: ERROR}), Ending({1: KILLED}, timed_out=True)).kind is Kind.TIMED_OUT


def test_errors_that_follow_from_a_machine_that_went_away_are_nobodys_mistake() -> None:
    verdict = judged(Ending({0: ERROR}, failure=Failure("machine 1 is gone", 1, lost=True)), Ending({1: ERROR}))
    assert (verdict.kind, verdict.reason) == (Kind.LOST, "machine 1 is gone")


def test_a_container_that_could_not_have_its_data_fails_the_job_whoever_ended_how() -> None:
    endings = [Ending({0: ERROR}, {0: "no data"}), Ending(problem="channel train: s3://b/x changed")]
    assert judged(*endings) == Verdict(Kind.FAILED, None, None, "ClientError: channel train: s3://b/x changed")
    assert judged(Ending({0: WELL}, problem="channel train: gone"), world_size=1).kind is Kind.FAILED
    assert judged(*endings, retries_errors=True).kind is Kind.LOST
    assert judged(*endings, Ending(stopped=True)).kind is Kind.STOPPED
