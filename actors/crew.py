"""The other machines of a job, as one of them sees them: the seam that lets one machine's steps serve one or many.

`Alone` is the crew of a job on one machine; `gang.py` has that of several, on Ray Train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from raymaker.actors.exchange.seam import Across
from raymaker.actors.spec import Place

T = TypeVar("T")


class Crew(Protocol):
    """What a machine asks of its fellows. A machine that dies ends the process of all, so that nobody waits for it."""

    place: Place

    def gather(self, name: str, mine: T) -> Sequence[T]:
        """Give `mine` and return everybody's, by machine: nobody goes on before all have come here."""

    def offer(self, name: str, mine: T) -> Mapping[int, T]:
        """Leave `mine`, in place of what was left there before, and return what there is so far, by machine."""

    def has_come(self, name: str) -> bool:
        """Tell whether any machine has given something to `gather` or `offer` under this name."""

    def renew(self, number: int) -> None:
        """Prepare for containers in place of those that were there: their exchange is a new one. All machines do so."""

    def wanted_revision(self) -> int:
        """The latest change of the job that was asked for, as far as is known here."""

    def raise_alarm(self) -> None:
        """Tell that a container here ended badly: the others' need not go on."""

    def is_alarmed(self) -> bool:
        """Tell whether any machine has raised the alarm."""

    def is_stop_requested(self) -> bool:
        """Tell whether the job is to stop."""

    def hosts(self) -> Mapping[str, str]:
        """Name the job's containers that run on other machines, each with its machine's address."""

    def across(self) -> Across | None:
        """Make this machine's end of the exchange between machines; None where there is one machine."""


class Alone:
    """The crew of a job on one machine."""

    def __init__(self, containers: int) -> None:
        self.place = Place(containers_per_machine=containers)
        self._stop_requested = False
        self._wanted_revision = 0

    def gather(self, name: str, mine: T) -> Sequence[T]:  # noqa: ARG002 - nobody else comes
        """Return what was given."""
        return [mine]

    def offer(self, name: str, mine: T) -> Mapping[int, T]:  # noqa: ARG002 - nobody else offers
        """Return what was given."""
        return {0: mine}

    def has_come(self, name: str) -> bool:  # noqa: ARG002 - nobody else comes
        """Nobody else is there to come."""
        return False

    def renew(self, number: int) -> None:
        """There is nothing to renew."""

    def want(self, revision: int) -> None:
        """Have a change of the job looked at."""
        self._wanted_revision = max(revision, self._wanted_revision)

    def wanted_revision(self) -> int:
        """The latest change that was asked for."""
        return self._wanted_revision

    def raise_alarm(self) -> None:
        """Nobody else is there to hear it."""

    def is_alarmed(self) -> bool:
        """Nobody else is there to raise it."""
        return False

    def request_stop(self) -> None:
        """Have the job stop."""
        self._stop_requested = True

    def is_stop_requested(self) -> bool:
        """Tell whether the job is to stop."""
        return self._stop_requested

    def hosts(self) -> Mapping[str, str]:
        """There are no other machines."""
        return {}

    def across(self) -> Across | None:
        """There is nobody to exchange with."""
        return None
