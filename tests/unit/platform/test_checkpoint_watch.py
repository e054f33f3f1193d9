"""The watch for checkpoints: never blocks, looks again when told, and outlives a store that is away."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from raymaker.actors.checkpoints.stored import StoredCheckpoint
from raymaker.actors.errors import StorageError
from raymaker.platform.evaluating.watch import LOOK_S, CheckpointWatch

FIRST, SECOND = StoredCheckpoint("first", 1, 1, 1.0), StoredCheckpoint("second", 1, 1, 2.0)


class FakeThreads(Executor):
    """Does what it was given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, work, arguments))
        return future

    def work(self) -> None:
        for future, work, arguments in self.waiting:
            try:
                future.set_result(work(*arguments))
            except StorageError as error:
                future.set_exception(error)
        self.waiting.clear()


class Shelf:
    """Where a watch looks."""

    def __init__(self) -> None:
        self.found: list[StoredCheckpoint] | Exception = [FIRST]
        self.looks = self.told = 0
        self.now = 0.0
        self.threads = FakeThreads()
        self.watch = CheckpointWatch(self.look, self.hear, lambda: self.now, self.threads)

    def look(self, uri: str) -> list[StoredCheckpoint]:
        self.looks += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def hear(self) -> None:
        self.told += 1

    def names(self) -> list[str]:
        """What the watch knows, once what it has begun is done."""
        self.watch.newest("s3://b/c")
        self.threads.work()
        return [each.name for each in self.watch.newest("s3://b/c")]


def test_a_slow_store_holds_nobody_up_and_its_word_comes_later() -> None:
    shelf = Shelf()
    assert shelf.watch.newest("s3://b/c") == ()
    assert shelf.watch.newest("s3://b/c") == ()
    assert len(shelf.threads.waiting) == 1, "one look at a time"
    assert shelf.names() == ["first"]
    assert (shelf.looks, shelf.told) == (1, 1)


def test_it_looks_again_in_time_or_when_there_is_something_new() -> None:
    shelf = Shelf()
    assert shelf.names() == ["first"]
    shelf.found = [SECOND, FIRST]
    assert shelf.names() == ["first"]
    assert shelf.looks == 1
    shelf.watch.hurry()
    assert shelf.names() == ["second", "first"]
    shelf.now += LOOK_S
    shelf.found = [FIRST]
    assert shelf.names() == ["first"]
    assert shelf.looks == 3


def test_a_store_that_is_away_leaves_what_was_found() -> None:
    shelf = Shelf()
    assert shelf.names() == ["first"]
    shelf.found = StorageError("away")
    shelf.watch.hurry()
    assert shelf.names() == ["first"]
    assert shelf.looks == 2
    shelf.watch.keep_only(())
    shelf.found = [SECOND]
    assert shelf.names() == ["second"]
