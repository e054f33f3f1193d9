"""The coordinator: who is there, who is gone, who is late, and what each machine hands to the others."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from raymaker.actors.exchange.coordinator import (
    BEAT_S,
    SILENCE_S,
    Coordinator,
    find_disagreement,
    name_machines,
)
from raymaker.actors.exchange.seam import Call, Failure
from raymaker.actors.spec import Place

SOON_S = 30.0


class Machines:
    """A coordinator with its machines, and a clock that moves by hand."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.now = 1000.0
        self.pool = pool
        self.coordinator = Coordinator(2, 2, clock=lambda: self.now)

    def join(self, *has_torch: bool) -> list[bool | Failure]:
        """Have all machines join, each from a thread of its own."""
        return self.at_once(
            *(
                self.pool.submit(self.coordinator.join, machine, torch, SOON_S)
                for machine, torch in enumerate(has_torch)
            )
        )

    def at_once(self, *answers: Future) -> list:
        return [answer.result(SOON_S) for answer in answers]

    def live(self, seconds: float, *beating: int, sequence: int = 1) -> Failure | None:
        """Let time go by in which only these machines beat."""
        heard = None
        for _ in range(round(seconds / BEAT_S)):
            self.now += BEAT_S
            for machine in beating:
                heard = self.coordinator.beat(machine, sequence, "all-reduce sum of 4 float32")
        return heard


@pytest.fixture
def machines() -> Iterator[Machines]:
    with ThreadPoolExecutor() as pool:
        yield Machines(pool)


@pytest.fixture
def joined(machines: Machines) -> Machines:
    machines.join(True, True)
    return machines


def test_machines_that_all_have_torch_agree_to_use_it(machines: Machines) -> None:
    assert machines.join(True, True) == [True, True]


def test_one_machine_without_torch_keeps_all_from_it(machines: Machines) -> None:
    assert machines.join(True, False) == [False, False]


def test_a_machine_that_does_not_come_is_named(machines: Machines) -> None:
    failure = machines.coordinator.join(0, True, 0.01)
    assert failure == Failure("machine 1 (ranks 2-3) did not come within 0.01 s", rank=2, lost=True)


def test_a_machine_that_joins_again_is_refused_and_the_others_go_on(joined: Machines) -> None:
    refused = joined.coordinator.join(1, True, SOON_S)
    assert isinstance(refused, Failure)
    assert "machine 1 (ranks 2-3) cannot join" in refused.message
    assert joined.coordinator.beat(0, 1, "") is None


def test_machines_that_beat_are_left_alone(joined: Machines) -> None:
    assert joined.live(10 * SILENCE_S, 0, 1) is None


def test_a_silent_machine_is_gone_and_the_others_hear_of_it(joined: Machines) -> None:
    assert joined.live(SILENCE_S, 0) is None
    failure = joined.live(2 * BEAT_S, 0)
    assert failure == Failure("machine 1 (ranks 2-3) is gone: nothing was heard from there for 8 s", rank=2, lost=True)


def test_nobody_is_gone_when_the_coordinator_itself_stood_still(joined: Machines) -> None:
    joined.live(1.0, 0, 1)
    joined.now += 60.0
    assert joined.coordinator.beat(0, 1, "") is None
    assert joined.coordinator.beat(1, 1, "") is None


def test_nobody_is_gone_before_all_have_come(machines: Machines) -> None:
    waiting = machines.pool.submit(machines.coordinator.join, 0, True, SOON_S)
    machines.now += 60.0
    assert machines.at_once(waiting, machines.pool.submit(machines.coordinator.join, 1, True, SOON_S)) == [True, True]
    assert machines.live(1.0, 0, 1) is None


def test_the_first_failure_stays(joined: Machines) -> None:
    first = Failure("rank 3 died", rank=3)
    assert joined.coordinator.fail(first) == first
    assert joined.coordinator.fail(Failure("the rest followed")) == first
    assert joined.live(1.0, 0) == first


def test_a_stall_is_blamed_on_the_machine_that_did_not_enter_the_call(joined: Machines) -> None:
    joined.coordinator.beat(1, 6, "barrier")
    failure = joined.coordinator.stalled(0, 7, "all-reduce sum of 4 float32", 300.0)
    assert failure.rank == 2
    assert failure.message == "machine 1 (ranks 2-3) did not join all-reduce sum of 4 float32 within 300 s"


def test_a_stall_of_machines_that_are_all_there_is_blamed_on_none(joined: Machines) -> None:
    joined.coordinator.beat(1, 7, "barrier")
    failure = joined.coordinator.stalled(0, 7, "barrier", 300.0)
    assert failure.rank is None
    assert "every machine has joined it" in failure.message


def test_a_machine_that_left_after_the_last_call_disturbs_nobody(joined: Machines) -> None:
    joined.coordinator.leave(1, 7)
    assert joined.live(10 * SILENCE_S, 0, sequence=7) is None


def test_a_machine_that_left_too_early_fails_those_who_go_on(joined: Machines) -> None:
    joined.coordinator.leave(1, 7)
    failure = joined.live(BEAT_S, 0, sequence=8)
    assert failure is not None
    assert failure.rank == 2
    assert failure.message == (
        "machine 1 (ranks 2-3) has ended, while others wait for it in all-reduce sum of 4 float32"
    )


def test_a_round_hands_each_machine_what_the_others_gave_it(joined: Machines) -> None:
    first = joined.pool.submit(joined.coordinator.swap, 0, 1, {1: "from 0 to 1"})
    second = joined.pool.submit(joined.coordinator.swap, 1, 1, {0: "from 1 to 0"})
    assert joined.at_once(first, second) == [{1: "from 1 to 0"}, {0: "from 0 to 1"}]


def test_rounds_do_not_mix_and_nothing_of_them_is_kept(joined: Machines) -> None:
    def all_rounds(machine: int) -> list:
        return [joined.coordinator.swap(machine, number, {1 - machine: number}) for number in range(50)]

    both = joined.at_once(joined.pool.submit(all_rounds, 0), joined.pool.submit(all_rounds, 1))
    assert both == [[{1: number} for number in range(50)], [{0: number} for number in range(50)]]
    assert not joined.coordinator._rounds


def test_who_waits_in_a_round_hears_of_a_failure(joined: Machines) -> None:
    waiting = joined.pool.submit(joined.coordinator.swap, 0, 1, {})
    failure = joined.coordinator.fail(Failure("rank 3 died", rank=3))
    assert waiting.result(SOON_S) == failure


def test_values_are_the_same_for_all_machines(joined: Machines) -> None:
    assert joined.coordinator.put_value("rate", b"0.1", "text/plain") == 1
    value = joined.coordinator.get_value("rate", 0, 0.0)
    assert value is not None
    assert value.content == b"0.1"
    assert joined.coordinator.get_value("rate", 1, 0.0) is None


def test_equal_calls_are_no_disagreement() -> None:
    assert find_disagreement([Call("barrier"), Call("barrier")], Place(0, 2, 2)) is None


def test_a_disagreement_names_the_odd_machine_and_every_call() -> None:
    usual, odd = Call("all-reduce", "float32", 8, "sum"), Call("all-reduce", "float32", 9, "sum")
    failure = find_disagreement([usual, odd, usual], Place(0, 3, 1))
    assert failure is not None
    assert failure.rank == 1
    assert "machine 0 (rank 0) and machine 2 (rank 2): all-reduce sum of 8 float32" in failure.message
    assert "machine 1 (rank 1): all-reduce sum of 9 float32" in failure.message


def test_between_two_machines_the_first_is_taken_to_be_right() -> None:
    failure = find_disagreement([Call("barrier"), Call("all-gather", "int64", 3)], Place(1, 2, 4))
    assert failure is not None
    assert failure.rank == 4


def test_machines_are_named_with_their_ranks() -> None:
    assert name_machines([1], Place(0, 2, 2)) == "machine 1 (ranks 2-3)"
    assert name_machines([0, 1], Place(0, 2, 1)) == "machine 0 (rank 0) and machine 1 (rank 1)"
