"""The other machines while they are being joined: asked, watched and closed before they have come, and after."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from raymaker.actors.exchange.joining import JoiningAcross
from raymaker.actors.exchange.seam import CLOSED, Across, ExchangeError, Failure, Values
from raymaker.actors.exchange.values import LocalValues

SOON_S = 30.0


class Machines:
    """An Across that keeps what it is asked."""

    def __init__(self) -> None:
        self.values: Values = LocalValues()
        self.met = 0
        self.closed = threading.Event()
        self.watched: list[Callable[[Failure], None]] = []

    def barrier(self) -> None:
        self.met += 1

    def watch(self, on_failure: Callable[[Failure], None]) -> None:
        self.watched.append(on_failure)

    def close(self) -> None:
        self.closed.set()


class Gate:
    """Joins once it is told how that ends."""

    def __init__(self) -> None:
        self.end: Future[Across] = Future()
        self.across = JoiningAcross(lambda: self.end.result(SOON_S))
        self.failures: list[Failure] = []
        self.failed = threading.Event()

    def hear(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.failed.set()


def test_who_asks_before_the_machines_have_come_waits_for_them() -> None:
    gate, machines = Gate(), Machines()
    with ThreadPoolExecutor(2) as threads:
        met = threads.submit(gate.across.barrier)
        put = threads.submit(gate.across.values.put, "name", b"content", "text/plain")
        assert not met.done()
        gate.end.set_result(machines)  # type: ignore[arg-type]
        met.result(SOON_S)
        assert put.result(SOON_S) == 1
    assert machines.met == 1
    value = machines.values.get("name")
    assert value is not None
    assert value.content == b"content"


@pytest.mark.parametrize("watches_first", [True, False])
def test_who_watches_is_told_by_the_machines_whenever_it_began(*, watches_first: bool) -> None:
    gate, machines = Gate(), Machines()
    if watches_first:
        gate.across.watch(gate.hear)
    gate.end.set_result(machines)  # type: ignore[arg-type]
    gate.across.barrier()
    if not watches_first:
        gate.across.watch(gate.hear)
    (told,) = machines.watched
    told(Failure("machine 1 is gone"))
    assert gate.failures == [Failure("machine 1 is gone")]


@pytest.mark.parametrize("watches_first", [True, False])
@pytest.mark.parametrize("error", [ExchangeError("machine 1 did not come"), OSError("no network")])
def test_machines_that_do_not_come_are_a_loss_that_everybody_hears_of(error: Exception, *, watches_first: bool) -> None:
    gate = Gate()
    if watches_first:
        gate.across.watch(gate.hear)
    gate.end.set_exception(error)
    with pytest.raises(ExchangeError, match=str(error)):
        gate.across.barrier()
    if not watches_first:
        gate.across.watch(gate.hear)
    assert gate.failed.wait(SOON_S)
    (failure,) = gate.failures
    assert failure.lost
    assert str(error) in failure.message
    gate.across.close()


def test_closing_ends_what_waits_and_lets_go_of_who_comes_too_late() -> None:
    gate, machines = Gate(), Machines()
    gate.across.watch(gate.hear)
    with ThreadPoolExecutor(1) as threads:
        met = threads.submit(gate.across.barrier)
        gate.across.close()
        with pytest.raises(ExchangeError, match=CLOSED.message):
            met.result(SOON_S)
    gate.end.set_result(machines)  # type: ignore[arg-type]
    assert machines.closed.wait(SOON_S)
    gate.across.close()
    assert not machines.watched
    assert not gate.failures


def test_closing_lets_go_of_those_that_have_come() -> None:
    gate, machines = Gate(), Machines()
    gate.end.set_result(machines)  # type: ignore[arg-type]
    gate.across.barrier()
    gate.across.close()
    assert machines.closed.is_set()
