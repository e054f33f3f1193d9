"""What one machine needs to wait for others in safety: its line to the coordinator, and a thread that may hang.

The line beats, asks, and keeps the first failure it hears of. Moves no arrays.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from raymaker.actors.exchange.coordinator import BEAT_S
from raymaker.actors.exchange.seam import CLOSED, ExchangeError, Failure

PATIENCE_S = 10.0
"""A coordinator that does not answer for so long is gone."""
CLOSING_S = 3.0


class Link:
    """This machine's line to the coordinator. `changed` guards it, and is notified of a failure and of its end."""

    def __init__(self, coordinator: Any, machine: int) -> None:
        self.changed = threading.Condition()
        self.sequence = 0
        """How many calls this machine has entered."""
        self.doing = "the start of the exchange"
        self._coordinator = coordinator
        self._machine = machine
        self._failure: Failure | None = None
        self._on_failure: Callable[[Failure], None] | None = None
        self._is_closed = False
        self._rounds = 0
        self._heart = threading.Thread(target=self._beat_until_over, name="exchange-across-beats", daemon=True)

    @property
    def is_over(self) -> bool:
        """Whether no call can be made any more."""
        return self._failure is not None or self._is_closed

    def raise_if_over(self) -> None:
        """Raise ExchangeError where no call can be made any more."""
        if self._failure is not None:
            raise ExchangeError(self._failure)
        if self._is_closed:
            raise ExchangeError(CLOSED)

    def join(self, has_torch: bool, timeout_s: float) -> bool:  # noqa: FBT001 - as Coordinator.join has it
        """Wait for the other machines; tells whether all have torch."""
        all_torch = self.ask("join", self._machine, has_torch, timeout_s, group="rounds")
        self._heart.start()
        return bool(all_torch)

    def swap(self, parts: Mapping[int, object]) -> dict[int, Any]:
        """Give a part to some machines and wait for theirs, as every machine does; tells them by who gave them."""
        self._rounds += 1
        return dict(self.ask("swap", self._machine, self._rounds, parts, group="rounds"))

    def ask(self, method: str, *arguments: object, group: str, patience_s: float = math.inf) -> Any:
        """Have the coordinator answer. Raises ExchangeError where the answer is a Failure, or none can come."""
        answer = self._send(method, *arguments, group=group)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                answered = ray.get(answer, timeout=1.0)
                break
            except GetTimeoutError:
                self.raise_if_over()
                if time.monotonic() >= deadline:
                    raise self._keep(_lost(f"did not answer within {patience_s:g} s")) from None
            except RayTaskError as error:
                raise error.cause from None  # e.g. what a value's `add` refuses
            except RayError as error:
                raise self._keep(_lost(f"is gone: {error}")) from error
        if isinstance(answered, Failure):
            raise self._keep(answered)
        return answered

    def fail(self, failure: Failure) -> ExchangeError:
        """Tell everybody; returns the error of the first failure of all."""
        with contextlib.suppress(RayError):  # without a coordinator this machine's own word stands
            failure = ray.get(self._send("fail", failure, group="beats"), timeout=PATIENCE_S)
        return self._keep(failure)

    def stalled(self, waited_s: float) -> ExchangeError:
        """Have the coordinator find who did not come; returns the error to raise."""
        arguments = (self._machine, self.sequence, self.doing, waited_s)
        try:
            failure = self.ask("stalled", *arguments, group="beats", patience_s=PATIENCE_S)
        except ExchangeError as error:
            return error
        raise TypeError(f"the coordinator answered a stall with {failure!r}")

    def watch(self, on_failure: Callable[[Failure], None]) -> None:
        """Have `on_failure` called with the failure, when there is one."""
        with self.changed:
            self._on_failure = on_failure
            self.changed.notify_all()

    def close(self) -> bool:
        """Stop beating, and say so; False where that was done before."""
        with self.changed:
            if self._is_closed:
                return False
            self._is_closed = True
            self.changed.notify_all()
        if self._heart.ident is None:
            return True  # it never joined
        if self._heart is not threading.current_thread():
            self._heart.join(CLOSING_S)
        with contextlib.suppress(RayError):  # whoever has no coordinator has nobody to tell
            ray.get(self._send("leave", self._machine, self.sequence, group="beats"), timeout=CLOSING_S)
        return True

    def _send(self, method: str, *arguments: object, group: str) -> Any:
        return getattr(self._coordinator, method).options(concurrency_group=group).remote(*arguments)

    def _keep(self, failure: Failure) -> ExchangeError:
        with self.changed:
            self._failure = self._failure or failure
            self.changed.notify_all()
            return ExchangeError(self._failure)

    def _beat_until_over(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._is_closed or (self._failure and self._on_failure), BEAT_S)
                failure, on_failure = self._failure, self._on_failure
                if self._is_closed:
                    return
            if failure is None:
                with contextlib.suppress(ExchangeError):  # kept: it is told by `watch` and at the next call
                    self.ask("beat", self._machine, self.sequence, self.doing, group="beats", patience_s=PATIENCE_S)
            elif on_failure is not None:
                on_failure(failure)
                return


class Job:
    """Something for the worker to do, and what came of it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        self.error: Exception | None = None
        self.is_done = False


class Worker:
    """The thread that waits in an engine, so that nobody else need wait for ever. It has one job at a time."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._last: Job | None = None
        self._thread = threading.Thread(target=self._work, name="exchange-across-engine", daemon=True)
        self._thread.start()

    def begin(self, work: Callable[[], None]) -> Job:
        """Start on a job; `changed` is notified when it is done."""
        job = self._last = Job(work)
        self._jobs.put(job)
        return job

    def end(self, last_work: Callable[[], None] | None) -> None:
        """Do one thing more and end the thread, unless it hangs."""
        with self._changed:
            is_free = self._changed.wait_for(lambda: self._last is None or self._last.is_done, CLOSING_S)
        if is_free and last_work is not None:
            self.begin(last_work)
        self._jobs.put(None)
        if is_free:
            self._thread.join(CLOSING_S)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            assert job.work is not None
            try:
                job.work()
            except Exception as error:
                job.error = error  # for who began the job to raise
            job.work = None  # it holds the caller's memory
            with self._changed:
                job.is_done = True
                self._changed.notify_all()
            del job


def _lost(how: str) -> Failure:
    return Failure(f"the actor that the job's machines meet at {how}", lost=True)
