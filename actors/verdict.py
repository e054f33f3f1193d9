"""How an attempt ended, all its containers taken together. Pure: statuses in, and the same verdict on every machine.

A container's own error is the user's to mend, so the job fails; an end that came from outside (a kill, a machine that
went away) costs the attempt, and another one may succeed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raymaker.actors.exchange.seam import Failure
from raymaker.actors.exit_policy import is_outside_kill
from raymaker.actors.runtime.base import ExitStatus
from raymaker.actors.spec import host_name


class Kind(enum.Enum):
    """What becomes of the attempt."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed out"
    LOST = "lost"
    """Not the user's doing, or to be tried again as the request has it."""


@dataclass(frozen=True)
class Ending:
    """What one machine saw of the end. `statuses` has the containers that ended by themselves, in that order, by rank.

    `words` are what those said that failed: their failure file or the end of their log. `failure` is the exchange's.
    """

    statuses: Mapping[int, ExitStatus] = field(default_factory=dict)
    words: Mapping[int, str] = field(default_factory=dict)
    failure: Failure | None = None
    problem: str | None = None
    """Why a container could not have its data, where that was so."""
    stopped: bool = False
    timed_out: bool = False

    @property
    def was_killed(self) -> bool:
        """Whether a container had no time to finish what it was writing."""
        return any(status.signal is not None or status.lost for status in self.statuses.values())


@dataclass(frozen=True)
class Verdict:
    """What becomes of the attempt, and which container decided it."""

    kind: Kind
    rank: int | None = None
    status: ExitStatus | None = None
    reason: str | None = None


def judge(endings: Iterable[Ending], world_size: int, *, retries_errors: bool) -> Verdict:
    """Say what becomes of the attempt. With `retries_errors` also an error of the user's is worth another attempt."""
    machines = list(endings)
    statuses = {rank: status for machine in machines for rank, status in machine.statuses.items()}
    failure = next((machine.failure for machine in machines if machine.failure), None)
    rank = find_culprit(statuses, failure)
    status = statuses[rank] if rank is not None else next(iter(statuses.values()), None)
    if any(machine.timed_out or machine.stopped for machine in machines):
        is_late = any(machine.timed_out for machine in machines)
        return Verdict(Kind.TIMED_OUT if is_late else Kind.STOPPED, rank, status)
    if (problem := next((machine.problem for machine in machines if machine.problem), None)) is not None:
        return Verdict(Kind.LOST if retries_errors else Kind.FAILED, None, None, f"ClientError: {problem}")
    if rank is None or status is None:
        return Verdict(Kind.COMPLETED, None, status)
    if failure is not None and failure.lost:
        return Verdict(Kind.LOST, rank, status, failure.message)
    who = f"{host_name(rank)} (rank {rank} of {world_size}): " if world_size > 1 else ""
    if is_outside_kill(status):
        return Verdict(Kind.LOST, rank, status, f"{who}the container did not end by itself: {status.describe()}")
    words = next((machine.words[rank] for machine in machines if rank in machine.words), status.describe())
    said = f"AlgorithmError: {who}{words}, exit code: {status.code}"
    return Verdict(Kind.LOST if retries_errors else Kind.FAILED, rank, status, said)


def find_culprit(statuses: Mapping[int, ExitStatus], failure: Failure | None) -> int | None:
    """Return the rank whose end brought the others down, None where all ended well.

    Those that wait for a dead rank fail too, sometimes before its own end is seen: so whom the exchange blames comes
    first, then who was killed from outside, then who failed first.
    """
    failed = [rank for rank, status in statuses.items() if status.code != 0]
    if failure is not None and failure.rank in failed:
        return failure.rank
    return next((rank for rank in failed if is_outside_kill(statuses[rank])), failed[0] if failed else None)
