"""Who is there, and who has come to which call: what the ranks of one machine agree on. Pure: no clock, lock or I/O.

Whoever uses it holds a lock around each call and passes `now` in seconds. The arrays themselves are gathering.py's.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from raymaker.actors.exchange.seam import Call, Failure

DISAGREEMENT_GRACE_S = 1.0
"""How long ranks that disagree wait for the others, which tell who is the odd one."""
_NAMED_RANKS = 8


class Cause(enum.Enum):
    """What kind of reason ends an exchange."""

    DISAGREEMENT = enum.auto()
    """Ranks made different calls."""
    LATE = enum.auto()
    """Ranks did not come in time."""
    GONE = enum.auto()
    """A rank died, left while others wait for it, or another machine cannot go on."""


class Conflict(Exception):
    """A request that does not go together with what its rank, or another, has done before."""


@dataclass(frozen=True)
class Verdict:
    """Why nobody can go on, and of what kind that is."""

    failure: Failure
    cause: Cause = Cause.GONE


@dataclass(frozen=True)
class Member:
    """How a rank joined. `pid` is what it calls itself in its container, `process` what this machine calls it."""

    pid: int
    process: int = 0
    arena: bool = True
    numpy: bool = True


@dataclass(frozen=True)
class Mode:
    """How this machine's ranks exchange: `arena` or `socket`; and who reduces: the `ranks` or the `hub`."""

    mode: str
    reduce: str


class Roster:
    """The ranks of this machine: who has joined and how, who has spoken without joining, who is gone."""

    def __init__(self, ranks: Sequence[int], join_timeout_s: float) -> None:
        self.ranks = tuple(ranks)
        self.members: dict[int, Member] = {}
        self._speakers: set[int] = set()
        self._departed: dict[int, str] = {}
        self._left: set[int] = set()
        self._join_timeout_s = join_timeout_s
        self._waits_since: float | None = None
        self._mode: Mode | None = None

    def join(self, rank: int, member: Member, now: float) -> None:
        """Have a rank join. Raises Conflict when it has joined before, or is gone."""
        self.check_present(rank)
        before = self.members.get(rank)
        if before:
            raise Conflict(f"rank {rank} has joined already, from process {before.pid}: one process per container")
        self.members[rank] = member
        self._waits_since = now if self._waits_since is None else self._waits_since

    def speak(self, rank: int) -> None:
        """Note that a rank uses its socket without having joined. Raises Conflict when it is gone."""
        self.check_present(rank)
        self._speakers.add(rank)

    def depart(self, rank: int, how: str) -> None:
        """Note that a rank makes no more calls, and how that came: words after its name. The first reason stays."""
        self._departed.setdefault(rank, how)

    def leave(self, rank: int) -> None:
        """Note that a rank has said that it makes no more calls."""
        self._left.add(rank)
        self.depart(rank, "has left the exchange")

    def lose(self, rank: int) -> Failure | None:
        """Note that a rank's life line has ended; the failure that this is, None where the rank had left before."""
        if rank in self._left:
            return None
        self.depart(rank, "died: its connection to the exchange closed before it had left")
        return Failure(f"rank {rank} {self._departed[rank]}", rank)

    def check_present(self, rank: int) -> None:
        """Raise Conflict when a rank is gone."""
        if rank in self._departed:
            raise Conflict(f"rank {rank} {self._departed[rank]}: it can make no more calls")

    @property
    def mode(self) -> Mode | None:
        """How the ranks exchange; None while it is not known of every rank. Once known it stays."""
        if self._mode is None and not self._missing():
            has_arena = all(rank in self.members and self.members[rank].arena for rank in self.ranks)
            has_numpy = all(member.numpy for member in self.members.values())
            self._mode = Mode("arena" if has_arena else "socket", "ranks" if has_arena and has_numpy else "hub")
        return self._mode

    def verdict(self, now: float) -> Verdict | None:
        """Say why those who have joined can wait no longer for the others; None while they can."""
        if self._waits_since is None or self.mode:
            return None
        missing = self._missing()
        waiting = name_ranks(self.members)
        if gone := self.first_departed(missing):
            rank, how = gone
            return Verdict(Failure(f"rank {rank} {how}; {waiting} waited for it to join the exchange", rank))
        if now - self._waits_since < self._join_timeout_s:
            return None
        message = f"{name_ranks(missing)} did not join the exchange within {self._join_timeout_s:g} s, as {waiting} did"
        return Verdict(Failure(message, missing[0]), Cause.LATE)

    def first_departed(self, ranks: Iterable[int]) -> tuple[int, str] | None:
        """Find the first of `ranks` that is gone, and how."""
        return next(((rank, self._departed[rank]) for rank in ranks if rank in self._departed), None)

    def _missing(self) -> list[int]:
        return [rank for rank in self.ranks if rank not in self.members and rank not in self._speakers]


@dataclass(eq=False)
class Meeting:
    """One collective call, as far as its ranks have come. The first to come says what it is to be."""

    opened_at: float
    ranks: tuple[int, ...]
    calls: dict[int, Call] = field(default_factory=dict)
    disagreed_at: float | None = None

    @property
    def missing(self) -> list[int]:
        """The ranks that have not come yet."""
        return [rank for rank in self.ranks if rank not in self.calls]

    @property
    def call(self) -> Call:
        """What the first rank called."""
        return next(iter(self.calls.values()))


class Rendezvous:
    """Where ranks meet for their calls, one call after another."""

    def __init__(self, roster: Roster, timeout_s: float) -> None:
        self._roster = roster
        self._timeout_s = timeout_s
        self._open: Meeting | None = None

    def arrive(self, rank: int, call: Call, now: float) -> Meeting:
        """Have a rank come to its next call. Raises Conflict when it is in one already, or gone."""
        self._roster.check_present(rank)
        meeting = self._open = self._open or Meeting(now, self._roster.ranks)
        if rank in meeting.calls:
            before = meeting.calls[rank].describe()
            raise Conflict(f"rank {rank} calls {call.describe()} while it still waits in {before}: one call at a time")
        meeting.calls[rank] = call
        if call != meeting.call and meeting.disagreed_at is None:
            meeting.disagreed_at = now
        if not meeting.missing and meeting.disagreed_at is None:
            self._open = None
        return meeting

    def verdict(self, now: float) -> Verdict | None:
        """Say why the call that ranks wait in can never be whole; None while it can."""
        meeting = self._open
        if meeting is None:
            return None
        if meeting.disagreed_at is not None:
            if meeting.missing and now - meeting.disagreed_at < DISAGREEMENT_GRACE_S:
                return None
            return Verdict(disagreement(meeting.calls), Cause.DISAGREEMENT)
        waiting = name_ranks(meeting.calls)
        if gone := self._roster.first_departed(meeting.missing):
            rank, how = gone
            return Verdict(Failure(f"rank {rank} {how}; {waiting} waited for it in {meeting.call.describe()}", rank))
        if now - meeting.opened_at < self._timeout_s:
            return None
        late = name_ranks(meeting.missing)
        message = f"{meeting.call.describe()}: {late} did not come within {self._timeout_s:g} s, while {waiting} waited"
        return Verdict(Failure(message, meeting.missing[0]), Cause.LATE)


def disagreement(calls: Mapping[int, Call]) -> Failure:
    """Name the odd rank and both calls. Most ranks are right; where no side has most, the lowest rank's is."""
    ranks = sorted(calls)
    counted = Counter(calls[rank] for rank in ranks)  # most_common keeps the order of ranks where counts are equal
    usual = counted.most_common(1)[0][0]
    odd = next(rank for rank in ranks if calls[rank] != usual)
    others = [rank for rank in ranks if calls[rank] == usual]
    verb = "calls" if len(others) == 1 else "call"
    return Failure(
        f"rank {odd} calls {calls[odd].describe()}, while {name_ranks(others)} {verb} {usual.describe()}: "
        "all ranks must make the same calls in the same order",
        odd,
    )


def name_ranks(ranks: Iterable[int]) -> str:
    """Write ranks as people do: `rank 1`, `ranks 0, 2 and 3`."""
    names = [str(rank) for rank in sorted(ranks)]
    if len(names) == 1:
        return f"rank {names[0]}"
    if len(names) > _NAMED_RANKS:
        return f"ranks {', '.join(names[:_NAMED_RANKS])} and {len(names) - _NAMED_RANKS} more"
    return f"ranks {', '.join(names[:-1])} and {names[-1]}"
