"""One start of a job as its ranks on one machine live through it: joining, calls, values, and the end of it all.

Any thread may call it; calls that wait are each their own thread. HTTP is routes.py's, files and sockets are hub.py's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from raymaker.actors.exchange.gathering import Gathering
from raymaker.actors.exchange.reduce import Array
from raymaker.actors.exchange.rendezvous import Cause, Conflict, Member, Mode, Rendezvous, Roster, Verdict
from raymaker.actors.exchange.seam import Across, Call, ExchangeError, Failure, Value, Values
from raymaker.actors.exchange.values import LocalValues
from raymaker.actors.spec import Place

logger = logging.getLogger(__name__)
T = TypeVar("T")

_TICK_S = 0.2
"""How often who waits looks whether its own caller is still there, and whether the others still can come."""
_VALUE_TICK_S = 1.0


class Ended(Exception):
    """Nobody can go on."""

    def __init__(self, failure: Failure, cause: Cause) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.cause = cause


class Session:
    """What the ranks of one machine have in common.

    `prepare` is called once, when it is known how the ranks exchange and before any of them is told. `on_failure` is
    called once, with the first failure.
    """

    def __init__(
        self,
        place: Place,
        across: Across | None,
        *,
        timeout_s: float,
        join_timeout_s: float,
        prepare: Callable[[Mode], None],
        on_failure: Callable[[Failure], None],
    ) -> None:
        self.place = place
        self.timeout_s = timeout_s
        self._across = across
        self._prepare = prepare
        self._on_failure = on_failure
        self._values: Values = across.values if across else LocalValues()
        self._lock = threading.RLock()
        self._roster = Roster(place.ranks, join_timeout_s)
        self._rendezvous = Rendezvous(self._roster, timeout_s)
        self._gathering: Gathering | None = None
        self._waits: set[threading.Event] = set()
        self._mode: Mode | None = None
        self._is_preparing = False
        self._ready = threading.Event()
        self._verdict: Verdict | None = None
        self._is_closed = False
        self._calls_across = ThreadPoolExecutor(1, "exchange-across") if across else None
        if across:
            across.watch(self._hear_failure)

    @property
    def failure(self) -> Failure | None:
        """Why nobody can go on: the first reason of all."""
        with self._lock:
            return self._verdict.failure if self._verdict else None

    @property
    def mode(self) -> Mode | None:
        """How this machine's ranks exchange; None until all of them are known."""
        return self._mode

    def join(self, rank: int, member: Member) -> None:
        """Have a rank join: from now on lose() fails the exchange. Raises Conflict, Ended."""
        with self._lock:
            self._check()
            self._roster.join(rank, member, time.monotonic())
            self._see_who_is_there()

    def await_mode(self, rank: int, has_hung_up: Callable[[], bool]) -> Mode:
        """Wait until every rank has joined or spoken. Raises Ended."""
        self._wait(self._ready, rank, "joining the exchange", has_hung_up)
        if self._mode is None:
            raise self._ended()
        return self._mode

    def collect(self, rank: int, process: int, call: Call, part: Array, has_hung_up: Callable[[], bool]) -> memoryview:
        """Make a call with the other ranks; the result, which nobody may change. Raises Conflict, Ended."""
        with self._lock:
            self.check_caller(rank, process)
            if self._mode and self._mode.mode == "arena":
                raise Conflict(f"rank {rank} has joined with the arena: its calls go through the arena, not the socket")
            self._speak(rank)
            meeting = self._rendezvous.arrive(rank, call, time.monotonic())
            if len(meeting.calls) == 1:
                self._gathering = Gathering(call, self.place)
                self._waits.add(self._gathering.done)
            gathering = self._gathering
            assert gathering is not None
        if call != gathering.call:
            self._judge()
        else:
            self._guard(partial(self._bring, gathering, rank, part))
        del part
        self._wait(gathering.done, rank, call.describe(), has_hung_up)
        if not gathering.is_complete:
            raise self._ended()
        return gathering.result

    def check_caller(self, rank: int, process: int) -> None:
        """Raise Conflict for a process that is not the rank which has joined; Ended where nobody can go on."""
        with self._lock:
            self._check()
            member = self._roster.members.get(rank)
        if member and process != member.process:
            message = (
                f"rank {rank} is process {member.pid}, which has joined: other processes of its container cannot call"
            )
            raise Conflict(message)

    def publish(self, name: str, document: Mapping[str, Any]) -> None:
        """Have the ranks find a document that comes from none of them."""
        with contextlib.suppress(Ended):  # nobody looks any more
            self._ask(lambda: self._values.put(name, json.dumps(document).encode(), "application/json"))

    def put_value(self, rank: int, name: str, content: bytes, content_type: str) -> int:
        """Replace a value; returns its new version. Raises ValueError, Ended."""
        self._speak(rank)
        return self._ask(lambda: self._values.put(name, content, content_type))

    def add_value(self, rank: int, name: str, content: bytes, dtype: str) -> int:
        """Add an array to a value; returns its new version. Raises ValueError, Ended."""
        self._speak(rank)
        return self._ask(lambda: self._values.add(name, content, dtype))

    def get_value(
        self, rank: int, name: str, after_version: int, wait_s: float, has_hung_up: Callable[[], bool]
    ) -> Value | None:
        """Read a value newer than `after_version`, waiting for it; None where none came. Raises ValueError, Ended."""
        self._speak(rank)
        deadline = time.monotonic() + wait_s
        while True:
            with self._lock:
                self._check()
            left_s = deadline - time.monotonic()
            value = self._ask(partial(self._values.get, name, after_version, min(max(left_s, 0.0), _VALUE_TICK_S)))
            if value is not None or left_s <= 0.0 or has_hung_up():
                return value

    def leave(self, rank: int) -> None:
        """Have a rank make no more calls: whoever waits for it, now or later, fails."""
        with self._lock:
            self._roster.leave(rank)
        self._judge()

    def lose(self, rank: int) -> None:
        """Hear that a joined rank's connection has closed, which fails the exchange where the rank has not left."""
        with self._lock:
            if self._is_closed:
                return
            failure = self._roster.lose(rank)
        if failure:
            self.fail(failure)

    def end_rank(self, rank: int, how: str) -> None:
        """Hear that a rank's container has ended: whoever waits for it, now or later, fails."""
        with self._lock:
            self._roster.depart(rank, f"ended ({how})")
        self._judge()

    def fail(self, failure: Failure, cause: Cause = Cause.GONE) -> Failure:
        """Let nobody go on, on any machine; returns the first failure, which stays."""
        if self._end(Verdict(failure, cause)) and self._across:  # asking may take long, and nobody here waits for it
            threading.Thread(target=self._tell_others, args=(self._across, failure), daemon=True).start()
        return self.failure or failure

    def close(self) -> None:
        """Let nobody go on, though nothing failed, and let go of the other machines. Closing twice does nothing."""
        with self._lock:
            self._is_closed = True
            self._wake()
        if self._across:
            self._across.close()  # which ends what waits in a call to them
        if self._calls_across:
            self._calls_across.shutdown(wait=True, cancel_futures=True)

    def _speak(self, rank: int) -> None:
        with self._lock:
            self._check()
            self._roster.speak(rank)
            self._see_who_is_there()

    def _ask(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except ExchangeError as error:
            self._end(Verdict(error.failure))
            raise self._ended() from error

    def _see_who_is_there(self) -> None:
        """Once every rank is known, find out how they exchange, with the other machines where there are any."""
        mode = self._roster.mode
        if mode is None or self._is_preparing:
            return
        self._is_preparing = True
        if self._calls_across:
            self._calls_across.submit(self._guard, partial(self._settle, mode))
        else:
            self._guard(partial(self._settle, mode))

    def _settle(self, mode: Mode) -> None:
        """The machines must all exchange alike, since they meet in the same calls: one without arena, all without."""
        if self._across:
            everyone = bytearray(self.place.machine_count)
            self._across.all_gather(memoryview(bytearray([mode.mode == "arena"])), memoryview(everyone))
            mode = mode if all(everyone) else Mode("socket", "hub")
        self._prepare(mode)
        self._mode = mode
        self._ready.set()

    def _bring(self, gathering: Gathering, rank: int, part: Array) -> None:
        if not gathering.bring(rank, part):
            return
        with self._lock:
            self._gathering = None  # held here, its arrays would stay until the next call
        if self._calls_across:
            self._calls_across.submit(self._guard, partial(gathering.finish, self._across))
        else:
            gathering.finish(None)

    def _guard(self, work: Callable[[], None]) -> None:
        """Do what others wait for; what goes wrong in it ends the exchange."""
        try:
            work()
        except ExchangeError as error:
            self._end(Verdict(error.failure))
        except Exception as error:  # a thread's end would leave the ranks waiting; they learn the reason instead
            logger.exception("exchange: what all ranks wait for broke down")
            self.fail(Failure(f"the exchange of machine {self.place.machine_index} broke down: {error!r}"))

    def _wait(self, done: threading.Event, rank: int, doing: str, has_hung_up: Callable[[], bool]) -> None:
        with self._lock:
            self._waits.add(done)
            if self._is_over:
                done.set()
        while not done.wait(_TICK_S):
            if has_hung_up():
                self.fail(Failure(f"rank {rank} hung up in the middle of {doing}", rank))
            self._judge()
        with self._lock:
            self._waits.discard(done)

    def _judge(self) -> None:
        now = time.monotonic()
        with self._lock:
            verdict = self._roster.verdict(now) or self._rendezvous.verdict(now)
        if verdict:
            self.fail(verdict.failure, verdict.cause)

    def _hear_failure(self, failure: Failure) -> None:
        self._end(Verdict(failure))

    def _end(self, verdict: Verdict) -> bool:
        """Keep why nobody can go on; False where there was a reason before."""
        with self._lock:
            if self._is_over:
                return False
            self._verdict = verdict
            self._wake()
        logger.warning("exchange: %s", verdict.failure.message)
        self._on_failure(verdict.failure)
        return True

    def _wake(self) -> None:
        self._ready.set()
        for event in self._waits:
            event.set()

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._verdict is not None

    def _check(self) -> None:
        """Raise Ended where nobody can go on: whoever comes now was not there when it happened."""
        if self._is_over:
            ended = self._ended()
            raise Ended(ended.failure, Cause.GONE)

    def _ended(self) -> Ended:
        verdict = self._verdict or Verdict(Failure("the exchange has ended: its job's start is over on this machine"))
        return Ended(verdict.failure, verdict.cause)

    def _tell_others(self, across: Across, failure: Failure) -> None:
        try:
            across.fail(failure)
        except Exception:  # the other machines find out by themselves, if later
            logger.warning("exchange: the other machines could not be told of a failure", exc_info=True)
