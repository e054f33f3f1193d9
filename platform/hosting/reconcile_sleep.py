"""The part of the reconciler that puts endpoints to sleep while nobody asks. Waking one is deploying it, as ever.

Nothing is taken away that a replica has not called idle itself. Whoever asks meanwhile is answered by what drains, or
finds nothing there and wakes the endpoint.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from raymaker.platform.database import hosting
from raymaker.platform.database.activity import activities, delete_activity
from raymaker.platform.database.engine import Database
from raymaker.platform.database.invocations import has_invocations
from raymaker.platform.hosting import sleep
from raymaker.platform.records import EndpointRecord, EndpointStatus, SleepStage
from raymaker.serving.endpoint import EndpointObservation, EndpointState
from raymaker.serving.spec import FRONT

STARTING_S = 15.0
"""After how long instances that are wanted and do not run are taken to want for room: most have started before."""


class SleepFleet(Protocol):
    """What is asked of the cluster."""

    def remove_endpoint(self, name: str) -> None:
        """Take an endpoint away. Returns before it is gone."""


class SleepReconciler:
    """Takes away what an endpoint has when nobody needs it."""

    def __init__(self, database: Database, fleet: SleepFleet, most_resting: int) -> None:
        self._database = database
        self._fleet = fleet
        self._most_resting = most_resting
        self._resting: dict[str, float] = {}
        """The endpoints whose replica rests instead, and when they were last asked."""
        self._is_room_wanted = False
        """Whether somebody waits for room, of which those that rest hold some."""
        self._short_since: float | None = None

    def take_away(self, endpoint: EndpointRecord, seen: EndpointObservation) -> bool:
        """Bring an endpoint that falls asleep further. False where it does not."""
        if endpoint.sleep is not SleepStage.FALLING_ASLEEP or endpoint.status is not EndpointStatus.IN_SERVICE:
            return False
        self._resting.pop(endpoint.name, None)
        if seen.state is EndpointState.MISSING:
            with self._database.transaction() as connection:
                hosting.move_endpoint(connection, endpoint.name, sleep.be_asleep)
                delete_activity(connection, endpoint.name)
        elif seen.state is not EndpointState.DELETING:
            self._fleet.remove_endpoint(endpoint.name)
        return True

    def lay_down(
        self, endpoint: EndpointRecord, seen: EndpointObservation, idle_s: float, now: float, *, may_rest: bool
    ) -> bool:
        """Have a healthy endpoint fall asleep where nobody has asked for `idle_s`. False where it stays."""
        with self._database.reading() as connection:
            said = activities(connection, endpoint.name)
            waits = has_invocations(connection, endpoint.name)
        if waits or not sleep.is_idle(said, seen.running_counts.get(FRONT, 0), idle_s, now):
            self._resting.pop(endpoint.name, None)
            return False
        if may_rest and self._rests(endpoint.name, max(each.last_request_at for each in said)):
            return False
        hosting.apply_move(self._database, endpoint.name, lambda record: sleep.fall_asleep(record, endpoint.generation))
        return True

    def hear_of_room(self, now: float, *, jobs_wait: bool, endpoints_lack: bool) -> None:
        """Hear whether jobs wait for room, and whether endpoints lack instances: which may be only starting."""
        self._short_since = (self._short_since or now) if endpoints_lack else None
        has_lacked_long = self._short_since is not None and now - self._short_since >= STARTING_S
        self._is_room_wanted = jobs_wait or has_lacked_long

    def forget(self, names: Collection[str]) -> None:
        """Forget those that rest but for these, which there are."""
        self._resting = {name: at for name, at in self._resting.items() if name in names}

    def _rests(self, name: str, asked_at: float) -> bool:
        """Tell whether an idle endpoint is among those that may rest: those that were asked last."""
        self._resting[name] = asked_at
        last = sorted(self._resting, key=lambda each: self._resting[each])[-self._most_resting :]
        return bool(self._most_resting) and name in last and not self._is_room_wanted

    def give_up(self, endpoint: EndpointRecord, reason: str) -> None:
        """Have an endpoint that could not be woken go back to sleep, with the reason."""
        hosting.apply_move(
            self._database, endpoint.name, lambda record: sleep.wake_failed(record, endpoint.generation, reason)
        )
