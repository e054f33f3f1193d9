"""What changes about a job while it trains: the newest revision, as one machine's ranks hear of it, and who has heard.

Knows no wire. A rank has heard of a revision once it was handed to it; what nobody has heard of can be taken back.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from raymaker.actors.spec import TrainingSpec


@dataclass(frozen=True)
class Revision:
    """How a job is to go on. Numbers grow; that of a part is the revision which changed it last.

    `code` is the folder in which a container finds newer code than it was started with, None where there is none.
    """

    number: int = 0
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    hyperparameters_number: int = 0
    code: str | None = None
    code_number: int = 0

    @classmethod
    def of(cls, spec: TrainingSpec, code: str | None) -> Revision:
        """What a spec has in force."""
        numbers = spec.revisions
        return cls(numbers.number, spec.hyperparameters, numbers.hyperparameters, code, numbers.code)


class Changes:
    """The revision that is in force, or on trial. Threads may share it."""

    def __init__(self, first: Revision | None = None, started_number: int = 0) -> None:
        self.started_number = started_number
        """The revision with which the containers were started."""
        self._newest = first or Revision()
        self._heard: dict[int, int] = {}
        self._changed = threading.Condition()

    def publish(self, revision: Revision) -> None:
        """Have every rank that asks, or waits, hear of a revision."""
        with self._changed:
            self._newest = revision
            self._changed.notify_all()

    def wait(self, rank: int, since: int, wait_s: float) -> bool:
        """Wait up to `wait_s` for a revision later than `since`, which the rank knows; True where there is one."""
        with self._changed:
            self._note(rank, since)
            return self._changed.wait_for(lambda: self._newest.number > since, wait_s)

    def take(self, rank: int, since: int) -> Revision | None:
        """Hand the newest revision to a rank, where it is later than `since`; from now on the rank has heard of it."""
        with self._changed:
            if self._newest.number <= since:
                return None
            self._note(rank, self._newest.number)
            return self._newest

    def heard(self, number: int) -> tuple[int, ...]:
        """The ranks of this machine that have heard of a revision, or of a later one."""
        with self._changed:
            return tuple(sorted(rank for rank, known in self._heard.items() if known >= number))

    def take_back(self, number: int, to: Revision) -> bool:
        """Put an earlier revision in the place of one that no rank has heard of; False where one has."""
        with self._changed:
            if any(known >= number for known in self._heard.values()):
                return False
            self._newest = to
            return True

    def _note(self, rank: int, number: int) -> None:
        """A rank may know what an earlier hub of this container told it, but nothing later than there is."""
        self._heard[rank] = max(self._heard.get(rank, 0), min(number, self._newest.number))
