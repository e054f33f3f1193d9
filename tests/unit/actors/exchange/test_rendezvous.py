"""Who meets for which call, and what is said when they cannot: every message names the rank to blame."""

from __future__ import annotations

import pytest

from raymaker.actors.exchange.rendezvous import (
    DISAGREEMENT_GRACE_S,
    Cause,
    Conflict,
    Member,
    Mode,
    Rendezvous,
    Roster,
    disagreement,
    name_ranks,
)
from raymaker.actors.exchange.seam import Call

TEN = Call("all-reduce", "float32", 10, "sum")
TWENTY = Call("all-reduce", "float32", 20, "sum")
BARRIER = Call("barrier")


def make(rank_count: int = 3, timeout_s: float = 30.0) -> tuple[Roster, Rendezvous]:
    roster = Roster(range(rank_count), join_timeout_s=60.0)
    return roster, Rendezvous(roster, timeout_s)


def test_a_call_is_whole_when_all_ranks_have_come_and_the_next_one_is_another() -> None:
    _, rendezvous = make(2)
    first = rendezvous.arrive(1, TEN, now=0)
    assert first.missing == [0]
    assert rendezvous.arrive(0, TEN, now=1) is first
    assert first.missing == []
    assert rendezvous.verdict(now=1000) is None
    assert rendezvous.arrive(0, BARRIER, now=2) is not first


def test_the_deadline_names_who_did_not_come_and_who_waited() -> None:
    _, rendezvous = make(4)
    rendezvous.arrive(0, TEN, now=100)
    rendezvous.arrive(2, TEN, now=120)
    assert rendezvous.verdict(now=129.9) is None
    verdict = rendezvous.verdict(now=130)
    assert verdict is not None
    assert verdict.cause is Cause.LATE
    assert verdict.failure.rank == 1
    assert verdict.failure.message == (
        "all-reduce sum of 10 float32: ranks 1 and 3 did not come within 30 s, while ranks 0 and 2 waited"
    )


def test_of_three_ranks_the_one_that_differs_is_blamed_also_when_it_came_first() -> None:
    _, rendezvous = make(3)
    rendezvous.arrive(2, TWENTY, now=0)
    rendezvous.arrive(0, TEN, now=0)
    assert rendezvous.verdict(now=DISAGREEMENT_GRACE_S / 2) is None
    rendezvous.arrive(1, TEN, now=DISAGREEMENT_GRACE_S / 2)
    verdict = rendezvous.verdict(now=DISAGREEMENT_GRACE_S / 2)
    assert verdict is not None
    assert verdict.cause is Cause.DISAGREEMENT
    assert verdict.failure.rank == 2
    assert verdict.failure.message == (
        "rank 2 calls all-reduce sum of 20 float32, while ranks 0 and 1 call all-reduce sum of 10 float32: "
        "all ranks must make the same calls in the same order"
    )


def test_ranks_that_disagree_do_not_wait_long_for_the_others() -> None:
    _, rendezvous = make(4)
    rendezvous.arrive(0, TEN, now=0)
    rendezvous.arrive(1, BARRIER, now=5)
    verdict = rendezvous.verdict(now=5 + DISAGREEMENT_GRACE_S)
    assert verdict is not None
    assert verdict.failure.rank == 1
    assert "rank 1 calls barrier, while rank 0 calls all-reduce" in verdict.failure.message


@pytest.mark.parametrize(
    "other",
    [
        Call("all-reduce", "float64", 10, "sum"),
        Call("all-reduce", "float32", 10, "max"),
        Call("broadcast", "float32", 10, root=1),
        Call("all-gather", "float32", 10),
        BARRIER,
    ],
)
def test_another_type_operation_or_kind_is_another_call(other: Call) -> None:
    failure = disagreement({0: TEN, 1: other})
    assert failure.rank == 1
    assert other.describe() in failure.message
    assert TEN.describe() in failure.message


def test_waiting_for_a_rank_that_is_gone_fails_at_once_whether_it_went_before_or_after() -> None:
    roster, rendezvous = make(2)
    rendezvous.arrive(0, TEN, now=0)
    assert rendezvous.verdict(now=0) is None
    roster.depart(1, "ended (exit code 3)")
    verdict = rendezvous.verdict(now=0)
    assert verdict is not None
    assert verdict.cause is Cause.GONE
    assert verdict.failure.rank == 1
    assert verdict.failure.message == "rank 1 ended (exit code 3); rank 0 waited for it in all-reduce sum of 10 float32"


def test_a_rank_that_is_gone_fails_nobody_who_does_not_wait_for_it() -> None:
    roster, rendezvous = make(2)
    roster.leave(1)
    assert rendezvous.verdict(now=1e6) is None
    assert roster.verdict(now=1e6) is None


def test_a_rank_makes_one_call_at_a_time() -> None:
    _, rendezvous = make(2)
    rendezvous.arrive(0, TEN, now=0)
    with pytest.raises(Conflict, match="rank 0 calls barrier while it still waits in all-reduce sum of 10 float32"):
        rendezvous.arrive(0, BARRIER, now=0)


def test_a_rank_that_has_left_makes_no_more_calls() -> None:
    roster, rendezvous = make(2)
    roster.leave(0)
    with pytest.raises(Conflict, match="rank 0 has left the exchange"):
        rendezvous.arrive(0, TEN, now=0)
    with pytest.raises(Conflict, match="rank 0 has left the exchange"):
        roster.join(0, Member(1), now=0)


def test_joining_twice_is_refused_with_the_process_that_joined_first() -> None:
    roster, _ = make(2)
    roster.join(0, Member(17), now=0)
    with pytest.raises(Conflict, match="rank 0 has joined already, from process 17: one process per container"):
        roster.join(0, Member(18), now=0)


@pytest.mark.parametrize(
    ("second", "mode"),
    [
        (Member(2), Mode("arena", "ranks")),
        (Member(2, numpy=False), Mode("arena", "hub")),
        (Member(2, arena=False), Mode("socket", "hub")),
        (None, Mode("socket", "hub")),
    ],
)
def test_the_arena_is_used_where_every_rank_has_it_and_the_ranks_reduce_where_every_one_has_numpy(
    second: Member | None, mode: Mode
) -> None:
    roster, _ = make(2)
    roster.join(0, Member(1), now=0)
    assert roster.mode is None
    if second:
        roster.join(1, second, now=0)
    else:
        roster.speak(1)
    assert roster.mode == mode


def test_the_deadline_for_joining_runs_from_the_first_who_joins() -> None:
    roster, _ = make(3)
    assert roster.verdict(now=1e6) is None
    roster.join(1, Member(1), now=1e6)
    assert roster.verdict(now=1e6 + 59) is None
    verdict = roster.verdict(now=1e6 + 60)
    assert verdict is not None
    assert verdict.cause is Cause.LATE
    assert verdict.failure.message == "ranks 0 and 2 did not join the exchange within 60 s, as rank 1 did"


def test_a_container_that_ends_before_it_joins_fails_those_who_have_joined() -> None:
    roster, _ = make(2)
    roster.depart(1, "ended (exit code 1)")
    assert roster.verdict(now=0) is None
    roster.join(0, Member(1), now=0)
    verdict = roster.verdict(now=0)
    assert verdict is not None
    assert verdict.failure.message == "rank 1 ended (exit code 1); rank 0 waited for it to join the exchange"


def test_a_life_line_that_ends_is_a_death_unless_the_rank_has_left() -> None:
    roster, _ = make(3)
    roster.leave(0)
    assert roster.lose(0) is None
    failure = roster.lose(1)
    assert failure is not None
    assert failure.rank == 1
    assert failure.message == "rank 1 died: its connection to the exchange closed before it had left"
    roster.depart(2, "ended (exit code 137)")
    failure = roster.lose(2)
    assert failure is not None
    assert failure.message == "rank 2 ended (exit code 137)"


def test_many_ranks_are_named_in_short() -> None:
    assert name_ranks([1]) == "rank 1"
    assert name_ranks([2, 0]) == "ranks 0 and 2"
    assert name_ranks(range(64)) == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 56 more"
