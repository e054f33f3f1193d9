"""The line of what waits for room: placed turn by turn in each step of the reconciler, and told why it waits.

Whose turn it is is `turns.py`'s matter, and who finds room `room.py`'s. Here that is carried out, at a cost that grows
with what is started and hardly with what waits.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from raymaker.actors.spec import Resources
from raymaker.platform.database.engine import Database
from raymaker.platform.room import Holding, Queued, Room
from raymaker.platform.turns import Turns

logger = logging.getLogger(__name__)

LEAVING_S = 2.0
"""For so long after a job's end what it held may not be free yet: its process has to go, and Ray has to hear of it."""
STOOD_S = 1.0
"""Who has been next for so long is told anew what is short; most of those who are next are started before."""
TOLD_AT_ONCE = 25
"""So many jobs are told in one transaction, and in one step: others want to write too."""


@dataclass(frozen=True)
class Line:
    """What one kind of job has in line: those that wait, and what those hold that were started, by their names."""

    waiting: Sequence[Queued] = ()
    holdings: Mapping[str, Holding] = field(default_factory=dict)


class Rooms(Protocol):
    """Who knows what the cluster has left."""

    def free(self) -> Resources:
        """What could be given to new jobs now."""

    def want(self, waiting: Sequence[Queued]) -> None:
        """Hear of what waits for room, the most urgent first."""


class Last(Protocol):
    """What is placed when all jobs have had their turns."""

    @property
    def is_waiting(self) -> bool:
        """Whether there is any."""

    def offer(self, room: Room, now: float) -> Sequence[Queued]:
        """Say what waits, now that jobs have taken from the room what they could."""


class Placing:
    """Starts what waits, in turn. Remembers what it must from step to step; a new process begins without harm."""

    def __init__(self, database: Database, rooms: Rooms) -> None:
        self._database = database
        self._rooms = rooms
        self._turns = Turns()
        self._kept_since: dict[str, float] = {}
        self._holdings: Mapping[str, Holding] = {}
        self._leaving: dict[str, tuple[Holding, float]] = {}
        self.is_expecting = False
        """Whether the next step should come soon: somebody waits, and room is about to appear or is left to look at."""

    @property
    def is_short(self) -> bool:
        """Whether room is kept for somebody who waits."""
        return bool(self._kept_since)

    def step(self, jobs: Sequence[Queued], holdings: Mapping[str, Holding], now: float, last: Last) -> None:
        """Start those for which there is room, `jobs` in turn and then what comes `last`, and tell the others."""
        self._note_leaving(holdings, now)
        self.is_expecting = False
        if not jobs and not last.is_waiting:
            self._kept_since.clear()
            self._rooms.want(())
            return
        free = self._rooms.free()
        leaving = [holding for holding, _ in self._leaving.values()]
        room = Room(free, [*holdings.values(), *leaving], now, self._kept_since)
        reasons: dict[str, str | None] = {}
        for job in self._turns.order(jobs, list(holdings.values()), free):
            reasons[job.name] = self._place(job, room, now)
            if room.is_full:
                break
        late = last.offer(room, now)
        for job in late if not room.is_full else ():
            reasons[job.name] = self._place(job, room, now)
        waiting = [job for job in (*jobs, *late) if reasons.get(job.name, job.waits) is not None]
        self.is_expecting = bool(waiting and self._leaving)
        self._keep(waiting, room, now)
        kept = [job.name for job in room.kept]
        self._rooms.want(sorted(waiting, key=lambda job: job.name not in kept))
        self._tell([(job, reason) for job in waiting if (reason := self._news(job, reasons, now)) is not None], now)

    def _place(self, job: Queued, room: Room, now: float) -> str | None:
        """Start a job where there is room, else return why it waits."""
        with logged(job.name):
            reason = room.take(job)
            if reason is None:
                job.start(now)
                self._turns.served(job.account)
            return reason
        return None

    def _note_leaving(self, holdings: Mapping[str, Holding], now: float) -> None:
        """Remember for a while what ended: it may still hold what it held."""
        for name in self._holdings.keys() - holdings.keys():
            self._leaving[name] = (replace(self._holdings[name], ends_by=now), now)
        self._leaving = {name: it for name, it in self._leaving.items() if now - it[1] < LEAVING_S}
        self._holdings = holdings

    def _keep(self, waiting: Sequence[Queued], room: Room, now: float) -> None:
        """Remember since when room is kept for whom; who waits once keeps their time."""
        since = self._kept_since
        kept = {job.name: since.get(job.name, now) for job in room.kept}
        self._kept_since = {job.name: since[job.name] for job in waiting if job.name in since} | kept

    def _news(self, job: Queued, reasons: Mapping[str, str | None], now: float) -> str | None:
        """What to tell a job that waits: something at first, and then what is short if it has been next for a while."""
        reason = reasons.get(job.name, job.waits)
        if reason is None or job.told is None:
            return reason
        since = self._kept_since.get(job.name)
        is_due = since is not None and now - since >= STOOD_S and job.name in reasons
        return reason if is_due and reason not in (job.waits, job.told) else None

    def _tell(self, news: Sequence[tuple[Queued, str]], now: float) -> None:
        if not news:
            return
        with logged("what waits"), self._database.transaction() as connection:
            for job, reason in news[:TOLD_AT_ONCE]:
                with logged(job.name):
                    job.tell(connection, reason, now)
        self.is_expecting = self.is_expecting or len(news) > TOLD_AT_ONCE


class Named(Protocol):
    """A record with a name."""

    @property
    def name(self) -> str:
        """The name, its own among those of its kind."""


R = TypeVar("R", bound=Named)
T = TypeVar("T")


class Derived(Generic[R, T]):
    """What is worked out of records, kept for as long as the very same records come again."""

    def __init__(self, derive: Callable[[R], T]) -> None:
        self._derive = derive
        self._kept: dict[str, tuple[R, list[T]]] = {}

    def of(self, records: Iterable[R]) -> list[T]:
        """Give it for each of these, without those of which it cannot be worked out; forget all others."""
        kept: dict[str, tuple[R, list[T]]] = {}
        for record in records:
            known = self._kept.get(record.name)
            kept[record.name] = known if known is not None and known[0] is record else (record, self._work_out(record))
        self._kept = kept
        return [value for _, values in kept.values() for value in values]

    def _work_out(self, record: R) -> list[T]:
        with logged(record.name):
            return [self._derive(record)]
        return []


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """Keep what one job meets with from the others."""
    try:
        yield
    except Exception:
        logger.exception("could not move %s", what)
