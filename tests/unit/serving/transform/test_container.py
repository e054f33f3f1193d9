"""A transform job's container that dies: started again, later and later, until it is given up."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from raymaker.actors.errors import ScoringError
from raymaker.serving.transform import container
from raymaker.serving.transform.container import FAILED_STARTS, SILENT_DEATHS, WatchedContainer, pause_before


class FakeContainer:
    """A container that dies when told to, and whose next starts may be made to fail."""

    def __init__(self) -> None:
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.failures: list[Exception] = []
        self.start_count = 0
        self.is_removed = False

    def start(self) -> tuple[str, int]:
        self.start_count += 1
        if self.failures:
            raise self.failures.pop(0)
        return ("10.0.0.1", 8080 + self.start_count)

    def wait(self) -> str:
        return self.ends.get()

    def kill(self) -> None:
        self.ends.put("killed")

    def stop(self) -> None:
        self.ends.put("stopped")

    def remove(self) -> None:
        self.is_removed = True


class Bench:
    """A watched container, and what was heard of it."""

    def __init__(self) -> None:
        self.fake = FakeContainer()
        self.addresses: list[Any] = []
        self.lost: list[Exception] = []
        self.told: list[str] = []
        self.answer_count = 0
        self.changed = threading.Condition()
        self.watched = WatchedContainer(
            self.fake,  # type: ignore[arg-type]
            on_address=lambda address: self.hear(self.addresses, address),
            on_lost=lambda error: self.hear(self.lost, error),
            tell=lambda message: self.hear(self.told, message),
            answer_count=lambda: self.answer_count,
        )
        self.watched.watch(("10.0.0.1", 8080))

    def hear(self, where: list[Any], what: Any) -> None:
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def until(self, condition: Any) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=10)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "FIRST_PAUSE_S", 0.0)


def test_a_container_that_dies_is_started_again_and_its_new_address_told():
    bench = Bench()
    bench.fake.ends.put("exit code 137")
    bench.until(lambda: len(bench.addresses) == 3)
    assert bench.addresses == [("10.0.0.1", 8080), None, ("10.0.0.1", 8081)]
    assert bench.told == ["The scoring container ended and is started again: exit code 137"]
    bench.watched.stop()
    assert bench.fake.is_removed
    assert bench.fake.start_count == 1


def test_one_that_answers_nobody_is_replaced():
    bench = Bench()
    bench.watched.replace()
    bench.until(lambda: len(bench.addresses) == 3)
    bench.watched.stop()


def test_one_that_does_not_start_again_is_given_up_with_the_reason():
    bench = Bench()
    bench.fake.failures = [ScoringError(f"failure {number}") for number in range(FAILED_STARTS)]
    bench.fake.ends.put("exit code 1")
    bench.until(lambda: bench.lost)
    assert str(bench.lost[0]) == "failure 2"
    bench.watched.stop()


def test_one_that_dies_again_and_again_without_an_answer_is_given_up():
    bench = Bench()
    for _ in range(SILENT_DEATHS + 1):
        bench.fake.ends.put("exit code 9")
    bench.until(lambda: bench.lost)
    assert "ended 21 times without an answer: exit code 9" in str(bench.lost[0])
    bench.watched.stop()


def test_one_that_answers_in_between_is_not_given_up():
    bench = Bench()
    for number in range(SILENT_DEATHS + 5):
        bench.answer_count += 1
        bench.fake.ends.put("exit code 9")
        bench.until(lambda number=number: bench.fake.start_count == number + 1)
    assert bench.lost == []
    bench.watched.stop()


def test_pauses_grow_from_nothing_to_half_a_minute(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(container, "FIRST_PAUSE_S", 0.5)
    assert [pause_before(count) for count in (0, 1, 2, 3, 4, 20)] == [0.0, 0.0, 0.5, 1.0, 2.0, 30.0]
