"""The evaluators on the cluster: which of them is at what, which is free for the next evaluation, and which must go.

An evaluator holds its instance's room for as long as it lives, also while it has nothing to do. So it stays for a while
where more is to come, and goes at once where somebody waits for that room. Knows no Ray: what it asks of the cluster is
the `EvaluatorFleet` protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from raymaker.actors.spec import Resources
from raymaker.platform.room import Room
from raymaker.serving.evaluation.spec import EvaluationSpec

logger = logging.getLogger(__name__)

EvaluatorKey = tuple[str, str]
"""A job, and the instance type that the evaluator has."""


class EvaluatorFleet(Protocol):
    """What evaluations ask of the cluster."""

    def evaluators(self) -> frozenset[EvaluatorKey]:
        """Name every evaluator that has its machine, placed or still waiting for its place."""

    def evaluate(self, spec: EvaluationSpec) -> None:
        """Have the job's evaluator be at an evaluation. Never blocks.

        Where there is none it is started, and what it needs kept from others until it has it. One that is at this
        evaluation goes on; one that is at another leaves that.
        """

    def rest_evaluator(self, key: EvaluatorKey) -> None:
        """Have an evaluator leave what it is at, and stay. Never blocks."""

    def end_evaluator(self, key: EvaluatorKey) -> None:
        """Have an evaluator leave what it is at, and end. Never blocks."""


TURNS = "a job's evaluations take turns"
ANYTHING = Resources(cpus=1, memory_bytes=1, gpus=1)
"""What an evaluator may hold that an earlier process has started."""
HURRY_S = 3.0
"""How long to look often whether an evaluator is gone that makes way."""


@dataclass
class _Idle:
    """An evaluator with nothing to do."""

    since: float
    holds: Resources
    is_ending: bool = False


class Evaluators:
    """Tells evaluators what to do. An evaluator does one thing at a time, so a job's evaluations take turns.

    `keep_s` is how long one stays that has nothing to do, where more is to come.
    """

    def __init__(self, fleet: EvaluatorFleet, keep_s: float) -> None:
        self._fleet = fleet
        self._keep_s = keep_s
        self._busy: dict[EvaluatorKey, EvaluationSpec] = {}
        self._idle: dict[EvaluatorKey, _Idle] = {}
        self._may_be_others = True
        """Whether an earlier process may have left some."""
        self._now = self._hurried_until = 0.0

    @property
    def are_making_way(self) -> bool:
        """Whether some are about to go, for what waits for their room."""
        return self._now < self._hurried_until

    def step(self, running: Sequence[EvaluationSpec], expected: Collection[str], now: float) -> None:
        """See that evaluators are at what was started, and end those that wait in vain.

        `expected` are the jobs of which more is to come. What is told again each time is for an evaluator that has died
        meanwhile, and was made again.
        """
        self._now = now
        before, self._busy = self._busy, {}
        for spec in running:
            if self._busy.setdefault(spec.evaluator, spec) is spec:
                self.evaluate(spec)
        if not (before or self._busy or self._idle or self._may_be_others):
            return
        resting = self._fleet.evaluators() - self._busy.keys()
        self._may_be_others = False
        self._idle = {key: self._idle.get(key) or self._rest(key, before.get(key)) for key in resting}
        for key, idle in self._idle.items():
            if idle.is_ending or key[0] not in expected or now - idle.since >= self._keep_s:
                self._end(key)

    def why_not(self, spec: EvaluationSpec, room: Room) -> str | None:
        """Say in words why an evaluation must wait although there is an evaluator for it; None where none keeps it."""
        if (other := self._busy.get(spec.evaluator)) is not None:
            return f"Waiting for evaluation {other.number}: {TURNS}"
        idle = self._idle.get(spec.evaluator)
        if idle is not None and (idle.is_ending or room.is_wanted(spec.instance_type.resources)):
            return f"Waiting for an instance of {spec.instance_type.name}: the job's evaluator makes way for others"
        return None

    def is_free(self, spec: EvaluationSpec) -> bool:
        """Whether there is an evaluator for this evaluation that has nothing to do."""
        return spec.evaluator in self._idle

    def evaluate(self, spec: EvaluationSpec) -> None:
        """Have an evaluation begin that was placed, or go on."""
        self._busy[spec.evaluator] = spec
        self._idle.pop(spec.evaluator, None)
        try:
            self._fleet.evaluate(spec)
        except Exception:
            logger.exception("could not start evaluation %s; the next step tries again", spec.label)

    def make_way(self, room: Room | None = None) -> None:
        """End those that have nothing to do and hold what somebody waits for in `room`, or all of them."""
        for key, idle in self._idle.items():
            if not idle.is_ending and (room is None or room.is_wanted(idle.holds)):
                self._end(key)
                self._hurried_until = self._now + HURRY_S

    def _rest(self, key: EvaluatorKey, last: EvaluationSpec | None) -> _Idle:
        """Have an evaluator leave what has ended: it may not know of that, where somebody has stopped it."""
        self._fleet.rest_evaluator(key)
        return _Idle(self._now, last.instance_type.resources if last is not None else ANYTHING)

    def _end(self, key: EvaluatorKey) -> None:
        self._idle[key].is_ending = True
        self._fleet.end_evaluator(key)
