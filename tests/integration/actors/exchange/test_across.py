"""The exchange between machines, for real: actors on two Ray nodes, with gloo and with the object store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest
import ray

from raymaker.actors.exchange.engines import interface_of
from raymaker.actors.exchange.seam import DTYPES, Call, ExchangeError, Failure
from support.exchange_machines import Machines, two_ray_nodes

ENGINES = {"Gloo": (True, True), "Objects": (False, False)}
SIZES = (1, 2, 3, 1021, 70_001)
HEARING_S = 20.0
_groups = count()

Start = Callable[..., Machines]


@pytest.fixture(scope="module", autouse=True)
def _nodes() -> Iterator[None]:
    with two_ray_nodes():
        yield


@pytest.fixture(scope="module", params=ENGINES)
def pair(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """Two machines that all tests of what goes well share, once with each engine."""
    machines = Machines(2, containers_per_machine=2)
    assert machines.open(f"pair-{next(_groups)}", torch=ENGINES[request.param]) == [request.param] * 2
    yield machines
    assert machines.all("close") == [[], []]
    machines.end()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start machines that may come to harm."""
    started = []

    def start_machines(machine_count: int = 2, engine: str = "Objects", **options: float) -> Machines:
        machines = Machines(machine_count, containers_per_machine=2)
        started.append(machines)
        machines.open(f"harm-{next(_groups)}", torch=(engine == "Gloo",) * machine_count, **options)
        return machines

    yield start_machines
    for machines in started:
        machines.end()


@pytest.mark.parametrize("operation", ["sum", "min", "max"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_reduce_combines_arrays_of_any_type_and_size(pair: Machines, dtype: str, operation: str) -> None:
    combine = {"sum": np.add, "min": np.minimum, "max": np.maximum}[operation]
    for size in SIZES:
        first = (np.arange(size) % 100).astype(dtype)
        second = (50 - np.arange(size) % 70).astype(dtype)
        both = pair.each("all_reduce", (first, operation), (second, operation))
        for combined in both:
            np.testing.assert_array_equal(combined, combine(first, second))


def test_arrays_larger_than_one_piece_are_combined_as_a_whole(pair: Machines) -> None:
    array = np.arange(9_000_001, dtype=np.float32)
    for operation, expected in (("sum", 2 * array), ("max", array)):
        for combined in pair.all("all_reduce", array, operation):
            np.testing.assert_array_equal(combined, expected)


def test_an_empty_array_is_combined_to_an_empty_one(pair: Machines) -> None:
    for combined in pair.all("all_reduce", np.empty(0, np.float32), "sum"):
        assert combined.size == 0


@pytest.mark.parametrize("operation", ["sum", "min", "max"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_not_a_number_at_any_machine_is_not_a_number_at_all(pair: Machines, dtype: str, operation: str) -> None:
    first, second = np.array([np.nan, 1, 2], dtype), np.array([1, np.nan, 3], dtype)
    for combined in pair.each("all_reduce", (first, operation), (second, operation)):
        assert np.isnan(combined).tolist() == [True, True, False]


def test_sums_that_round_are_the_same_bits_at_all_machines(pair: Machines) -> None:
    first, second = (np.random.default_rng(seed).standard_normal(100_003).astype(np.float32) for seed in (1, 2))
    both = pair.each("all_reduce", (first, "sum"), (second, "sum"))
    assert both[0].tobytes() == both[1].tobytes()


def test_memory_is_let_go_after_a_call(pair: Machines) -> None:
    assert pair.all("can_unmap_after_all_reduce", 10.0) == [True, True]


@pytest.mark.parametrize("root", [0, 1])
def test_broadcast_copies_the_root_machines_bytes(pair: Machines, root: int) -> None:
    for size in (1, 5_000_001):
        arrays = [np.full(size, 7 + machine, np.int32) for machine in range(2)]
        for received in pair.each("broadcast", *((array, root) for array in arrays)):
            np.testing.assert_array_equal(received, arrays[root])


def test_all_gather_collects_in_machine_order(pair: Machines) -> None:
    for size in (1, 5_000_001):
        arrays = [np.full(size, 7 + machine, np.int32) for machine in range(2)]
        for gathered in pair.each("all_gather", *((array, 2) for array in arrays)):
            np.testing.assert_array_equal(gathered, np.stack(arrays))


def test_a_barrier_lets_nobody_through_before_all_are_there(pair: Machines) -> None:
    early = pair.actors[0].barrier.remote()
    assert ray.wait([early], timeout=0.5)[0] == []
    pair.gather([early, pair.actors[1].barrier.remote()])


def test_values_of_one_machine_are_seen_by_the_others(pair: Machines) -> None:
    first, second = pair.actors
    waiting = second.get.remote("rate", 0, 30.0)
    version = ray.get(first.put.remote("rate", b"0.1"))
    value = ray.get(waiting)
    assert (value.version, value.content, value.content_type) == (version, b"0.1", "text/plain")
    assert ray.get(second.get.remote("rate", version)) is None


def test_values_are_added_up_over_machines(pair: Machines) -> None:
    pair.all("add", "gradient", np.arange(100_000, dtype=np.float32))
    value = ray.get(pair.actors[0].get.remote("gradient"))
    np.testing.assert_array_equal(np.frombuffer(value.content, np.float32), 2 * np.arange(100_000))


def test_a_value_that_cannot_be_added_is_refused_and_nothing_else_fails(pair: Machines) -> None:
    ray.get(pair.actors[0].add.remote("odd", np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match="cannot be added"):
        ray.get(pair.actors[1].add.remote("odd", np.zeros(4, np.float32)))
    assert pair.all("heard") == [[], []]
    pair.all("barrier")


@pytest.mark.parametrize("engine", ENGINES)
def test_three_machines_combine_what_does_not_divide_by_three(start: Start, engine: str) -> None:
    machines = start(3, engine)
    for size in (1, 2, 1000, 100_001):
        array = np.arange(size, dtype=np.int64)
        for combined in machines.each("all_reduce", (array, "sum"), (2 * array, "sum"), (4 * array, "sum")):
            np.testing.assert_array_equal(combined, 7 * array)
    for received in machines.each("broadcast", *((np.array([machine]), 2) for machine in range(3))):
        assert received.tolist() == [2]


def test_one_machine_without_torch_has_all_of_them_use_the_object_store() -> None:
    machines = Machines(2)
    assert machines.open(f"mixed-{next(_groups)}", torch=(True, False)) == ["Objects", "Objects"]
    machines.end()


def test_processes_can_meet_again_after_they_have_parted(start: Start) -> None:
    machines = start(engine="Gloo")
    for _ in range(2):
        assert [ray.get(actor.close.remote()) for actor in machines.actors] == [
            [],
            [],
        ]  # the host of torch's store first
        assert machines.open(f"again-{next(_groups)}") == ["Gloo", "Gloo"]
        assert [combined.tolist() for combined in machines.all("all_reduce", np.ones(2), "sum")] == [[2.0, 2.0]] * 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_machine_killed_in_an_all_reduce_is_named_to_the_others(start: Start, engine: str) -> None:
    machines = start(engine=engine)
    pids = machines.all("pid")
    endless = [actor.time_all_reduce.remote(5_000_000, 100_000) for actor in machines.actors]
    assert ray.wait(endless, timeout=1.0)[0] == []
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(ExchangeError, match=r"machine 1 \(ranks 2-3\) is gone"):
        ray.get(endless[0], timeout=HEARING_S)
    (failure,) = ray.get(machines.actors[0].heard.remote(HEARING_S))
    assert failure.rank == 2
    ray.get(machines.actors[0].close.remote(), timeout=HEARING_S)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_machine_that_freezes_is_named_to_the_others(start: Start, engine: str) -> None:
    machines = start(engine=engine)
    pids = machines.all("pid")
    os.kill(pids[1], signal.SIGSTOP)
    try:
        with pytest.raises(ExchangeError, match=r"machine 1 \(ranks 2-3\) is gone"):
            ray.get(machines.actors[0].barrier.remote(), timeout=HEARING_S)
    finally:
        os.kill(pids[1], signal.SIGKILL)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_machine_that_does_not_come_is_named_at_all_after_the_deadline(start: Start, engine: str) -> None:
    machines = start(engine=engine, timeout_s=4.0)
    machines.all("agree", Call("barrier"))
    call = Call("all-reduce", "float32", 4, "sum")
    with pytest.raises(ExchangeError, match=r"machine 1 \(ranks 2-3\) did not join all-reduce sum of 4 float32"):
        ray.get(machines.actors[0].agree.remote(call), timeout=HEARING_S)
    assert [failure.rank for (failure,) in machines.all("heard", HEARING_S)] == [2, 2]
    with pytest.raises(ExchangeError, match="did not join"):
        ray.get(machines.actors[1].agree.remote(call), timeout=HEARING_S)


@pytest.mark.parametrize("engine", ENGINES)
def test_machines_that_make_different_calls_all_hear_what_each_called(start: Start, engine: str) -> None:
    machines = start(engine=engine)
    calls = [Call("all-reduce", "float32", 4, "sum"), Call("all-reduce", "float32", 5, "sum")]
    for answer in [actor.agree.remote(call) for actor, call in zip(machines.actors, calls, strict=True)]:
        with pytest.raises(ExchangeError) as caught:
            ray.get(answer, timeout=HEARING_S)
        assert caught.value.cause.rank == 2
        assert "machine 0 (ranks 0-1): all-reduce sum of 4 float32" in str(caught.value)
        assert "machine 1 (ranks 2-3): all-reduce sum of 5 float32" in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_one_machine_says_cannot_go_on_fails_those_who_wait(start: Start, engine: str) -> None:
    machines = start(engine=engine)
    waiting = machines.actors[0].barrier.remote()
    failure = Failure("rank 3 ended with exit code 1", rank=3)
    ray.get(machines.actors[1].fail.remote(failure))
    with pytest.raises(ExchangeError, match="rank 3 ended with exit code 1"):
        ray.get(waiting, timeout=HEARING_S)
    assert machines.all("heard", HEARING_S) == [[failure], [failure]]
    with pytest.raises(ExchangeError, match="rank 3 ended"):
        ray.get(machines.actors[0].get.remote("rate", 0, 30.0), timeout=HEARING_S)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_machine_that_ends_early_is_named_to_those_who_go_on(start: Start, engine: str) -> None:
    machines = start(engine=engine)
    assert ray.get(machines.actors[1].close.remote()) == []
    with pytest.raises(ExchangeError, match=r"machine 1 \(ranks 2-3\) has ended, while others wait for it in"):
        ray.get(machines.actors[0].agree.remote(Call("all-reduce", "int32", 1, "sum")), timeout=HEARING_S)


def test_machines_that_lose_their_coordinator_say_so(start: Start) -> None:
    machines = start(engine="Gloo")
    waiting = machines.actors[0].barrier.remote()
    ray.kill(machines.coordinator)
    with pytest.raises(ExchangeError, match="the actor that the job's machines meet at is gone"):
        ray.get(waiting, timeout=HEARING_S)


def test_a_machine_that_never_comes_fails_those_who_wait_for_it(start: Start) -> None:
    machines = Machines(3)
    machines.actors.pop()
    with pytest.raises(ExchangeError, match=r"machine 2 \(rank 2\) did not come within 0.5 s"):
        machines.open(f"lonely-{next(_groups)}", join_timeout_s=0.5)
    machines.end()


def test_gloo_is_told_the_interface_of_this_machines_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.77") is None
