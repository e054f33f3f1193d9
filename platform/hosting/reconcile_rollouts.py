"""The part of the reconciler that follows a rollout: from step to step, and back where something is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from raymaker.platform.database import events, hosting
from raymaker.platform.database.activity import activities
from raymaker.platform.database.engine import Database
from raymaker.platform.hosting import rollout
from raymaker.platform.records import EndpointRecord, RolloutStage
from raymaker.serving.activity import WINDOW_S
from raymaker.serving.endpoint import EndpointObservation, EndpointState
from raymaker.serving.spec import EndpointSpec

SERVE_BEGINS_S = 3.0
"""How long after a deploy Serve may still tell how things were before it."""
_WORST_FIRST = (EndpointState.FAILED, EndpointState.UNHEALTHY, EndpointState.DEPLOYING, EndpointState.HEALTHY)


class RolloutReconciler:
    """Looks at one update at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def trouble(
        self, endpoint: EndpointRecord, spec: EndpointSpec, seen: EndpointObservation, now: float
    ) -> str | None:
        """Say why an update must be undone, None where all is well. `spec` is of what takes over."""
        if (overdue := rollout.is_overdue(endpoint, now)) is not None:
            return overdue
        if rollout.front_step(endpoint) is None:
            return None
        return (
            events.last_replica_failure(self._database, endpoint.arn, endpoint.generation)
            or _unhealthy(spec, seen)
            or self._alarm(endpoint, frozenset(map(spec.fleet_name, spec.variants)), now)
        )

    def only(
        self, staying: Collection[str], endpoint: EndpointRecord, seen: EndpointObservation, now: float
    ) -> EndpointObservation:
        """Say of an endpoint how those of its fleets are that stay, whatever is wrong with others.

        Serve is given a moment to begin what it was last asked for.
        """
        if seen.state not in {EndpointState.FAILED, EndpointState.UNHEALTHY}:
            return seen
        states = {EndpointState.DEPLOYING}
        if now - endpoint.modified_at >= SERVE_BEGINS_S:
            states = {seen.states.get(fleet, EndpointState.DEPLOYING) for fleet in staying}
        return dataclasses.replace(seen, state=next(state for state in _WORST_FIRST if state in states))

    def go_on(self, endpoint: EndpointRecord, now: float) -> bool:
        """Bring the update of a healthy endpoint further. False where only its end is left, or there is none."""
        name, generation = endpoint.name, endpoint.generation
        match endpoint.stage:
            case RolloutStage.PREPARING:
                hosting.apply_move(self._database, name, lambda record: rollout.fleets_ready(record, generation, now))
            case RolloutStage.RETURNING:
                hosting.apply_move(self._database, name, lambda record: rollout.returned(record, generation, now))
            case RolloutStage.SHIFTING if rollout.front_step(endpoint) is not None:
                moved = hosting.apply_move(self._database, name, lambda record: rollout.go_on(record, generation, now))
                return moved != endpoint or not rollout.has_waited(endpoint, now)
            case _:
                return False
        return True

    def _alarm(self, endpoint: EndpointRecord, fleets: Collection[str], now: float) -> str | None:
        """Say which alarm fires."""
        alarms = rollout.plan_for(endpoint).alarms
        if not alarms:
            return None
        with self._database.reading() as connection:
            told = activities(connection, endpoint.name)
        signals = [
            answered
            for each in told
            if now - each.time <= WINDOW_S
            for fleet, answered in each.fleets.items()
            if fleet in fleets
        ]
        return next((reason for alarm in alarms if (reason := alarm.reason(signals)) is not None), None)


def _unhealthy(spec: EndpointSpec, seen: EndpointObservation) -> str | None:
    """Say that replicas that take over have failed."""
    names = map(spec.fleet_name, spec.fleets)
    failed = [name for name in names if seen.states.get(name) is EndpointState.UNHEALTHY]
    return f"replicas of {', '.join(failed)} failed: {seen.message}" if failed else None
