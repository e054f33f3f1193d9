"""The thread that waits in an engine: it does its jobs, tells what came of them, and may hang without harm."""

from __future__ import annotations

import threading

from raymaker.actors.exchange import link
from raymaker.actors.exchange.link import Job, Worker

SOON_S = 30.0


def wait_for(changed: threading.Condition, job: Job) -> Job:
    with changed:
        assert changed.wait_for(lambda: job.is_done, SOON_S)
    return job


def test_jobs_are_done_one_after_the_other_and_a_last_one_at_the_end() -> None:
    changed, done = threading.Condition(), []
    worker = Worker(changed)
    for number in range(3):
        wait_for(changed, worker.begin(lambda number=number: done.append(number)))
    worker.end(lambda: done.append("last"))
    assert done == [0, 1, 2, "last"]
    assert not worker._thread.is_alive()


def test_an_error_is_told_and_the_next_job_is_done_all_the_same() -> None:
    changed = threading.Condition()
    worker = Worker(changed)
    failed = wait_for(changed, worker.begin(lambda: int("x")))
    assert isinstance(failed.error, ValueError)
    assert wait_for(changed, worker.begin(lambda: None)).error is None
    worker.end(None)


def test_what_a_job_works_on_is_let_go_when_it_is_done() -> None:
    changed = threading.Condition()
    worker = Worker(changed)
    data = bytearray(8)
    with memoryview(data) as view:
        wait_for(changed, worker.begin(view.tolist))
    data.append(0)  # a BufferError where anybody still holds a view
    worker.end(None)


def test_a_job_that_hangs_keeps_nobody_from_closing(monkeypatch) -> None:
    monkeypatch.setattr(link, "CLOSING_S", 0.01)
    changed, hangs = threading.Condition(), threading.Event()
    worker = Worker(changed)
    worker.begin(hangs.wait)
    worker.end(lambda: None)
    assert worker._thread.is_alive()
    hangs.set()
    worker._thread.join(SOON_S)
    assert not worker._thread.is_alive()
