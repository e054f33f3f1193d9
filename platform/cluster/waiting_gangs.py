"""The gangs that wait for a job on Ray: processes that a job of several instances finds instead of making them.

Each is the detached actor of its supervisor, which has the machines; it runs one attempt and ends with it
([decision 20](../../docs/decisions/0020-gangs-wait.md)).
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import list_named_actors

from raymaker.actors.site import Site
from raymaker.actors.spec import Placement, TrainingSpec
from raymaker.platform.cluster.nodes import living_nodes
from raymaker.platform.cluster.workers import detached, find_actor

logger = logging.getLogger(__name__)

PREFIX = "gang/"
CONCURRENCY = 32
"""Calls that a gang's supervisor answers at once: its machines', those to stop, and `placed`, which blocks."""
ANSWER_S = 20.0
"""How long a gang may take to say what it runs, after the control actor has come back."""
PAUSE_S = 10.0
"""How long no gang is made after one was taken, whose job needs the CPUs, or after one failed."""

Attempt = tuple[str, int]


@dataclass
class _Gang:
    """One gang as the control actor knows it."""

    actor: Any
    gathered: ray.ObjectRef[Any]
    """Answered once its machines wait."""
    attempt: Attempt | None = None


class WaitingGangs:
    """The gangs that wait, `wanted_count` of `size` instances each, and those that have waited. For one thread."""

    def __init__(self, site: Site, wanted_count: int, size: int) -> None:
        self._site = site
        self._wanted_count = wanted_count
        self._size = size
        self._gangs: dict[str, _Gang] = {}
        self._knows_earlier = False
        self._last: TrainingSpec | None = None
        """The attempt that would have fitted last: the next may be like it."""
        self._rest_until = 0.0

    def claimants(self) -> frozenset[Attempt]:
        """What all that live hold room as, as long as they have no attempt's."""
        return frozenset((name.removeprefix(PREFIX), 0) for name in self._look())

    def attempts(self) -> frozenset[Attempt]:
        """Name every attempt that runs on a gang which has waited."""
        return frozenset(gang.attempt for gang in self._look().values() if gang.attempt is not None)

    def find(self, attempt: Attempt) -> Any:
        """The supervisor of an attempt, None where there is none here."""
        return next((gang.actor for gang in self._look().values() if gang.attempt == attempt), None)

    def run(self, spec: TrainingSpec) -> ray.ObjectRef[Any] | None:
        """Have an attempt run by a gang that waits; None where there is none for it.

        What is returned is answered once it has its machines, or has ended.
        """
        if (
            spec.instance_count != self._size
            or spec.min_instance_count is not None
            or spec.instance_type.resources.gpus
        ):
            return None
        self._last = spec
        waiting = (gang for gang in self._look().values() if gang.attempt is None and _is_answered(gang.gathered))
        if (found := next(waiting, None)) is None:
            return None
        found.attempt = (spec.job_name, spec.attempt)
        self._rest_until = time.time() + PAUSE_S
        found.actor.run.remote(spec)
        placed: ray.ObjectRef[Any] = found.actor.placed.remote()
        return placed

    def keep_warm(self, now: float) -> None:
        """Have as many gangs wait as are wanted."""
        waiting = {name: gang for name, gang in self._look().items() if gang.attempt is None}
        for name in list(waiting)[self._wanted_count :]:
            ray.kill(self._gangs.pop(name).actor)
        if len(waiting) < self._wanted_count and now >= self._rest_until:
            self._make()

    def _make(self) -> None:
        # These import Ray Train, which few control planes need.
        from raymaker.actors.gang_claims import keep_claims_here
        from raymaker.platform.cluster.gang_actor import WaitingGangActor

        keep_claims_here()
        name = PREFIX + secrets.token_hex(6)
        actor = detached(WaitingGangActor, name, CONCURRENCY)
        handle = actor.remote(name.removeprefix(PREFIX), self._size, self._site, self._last)
        self._gangs[name] = _Gang(handle, handle.gathered.remote())

    def _look(self) -> dict[str, _Gang]:
        """See which gangs live."""
        if self._knows_earlier and not self._gangs:
            return self._gangs
        names = {name for name in list_named_actors() if name.startswith(PREFIX)}
        if not self._knows_earlier:
            self._gangs, self._knows_earlier = _find_all(names), True
        for name in self._gangs.keys() - names:
            if self._gangs.pop(name).attempt is None:
                logger.warning("the gang %s ended while it waited", name)
                self._rest_until = time.time() + PAUSE_S
        return self._gangs


def _find_all(names: set[str]) -> dict[str, _Gang]:
    """Find the gangs that an earlier control actor made. One that does not answer is ended."""
    found: dict[str, _Gang] = {}
    deadline = time.monotonic() + ANSWER_S
    for name in names:
        if (actor := find_actor(name)) is None:
            continue
        try:
            asked: Any = actor.taken_for.remote()
            attempt: Attempt | None = ray.get(asked, timeout=max(0.0, deadline - time.monotonic()))
        except RayError as error:
            logger.warning("%s does not say what it runs, and is ended: %s", name, error)
            ray.kill(actor)
            continue
        found[name] = _Gang(actor, actor.gathered.remote(), attempt)
    return found


def _can_wait(spec: TrainingSpec) -> bool:
    """Tell whether gangs that wait may be as an attempt wants its own: on one node, of fixed size, without GPUs."""
    is_packed = spec.placement is Placement.PACK or len(living_nodes()) == 1
    return is_packed and spec.min_instance_count is None and not spec.instance_type.resources.gpus


def _is_answered(answer: ray.ObjectRef[Any]) -> bool:
    return bool(ray.wait([answer], timeout=0)[0])
