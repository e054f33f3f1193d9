"""What a request met on its way through a graph: each step's container, status and times, as a compact document.

Times are milliseconds since the graph took the request in. Steps stand in the order in which they were reached; a step
that calls a node stands before those of the node.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from raymaker.serving.graph.document import Target, TargetKind
from raymaker.serving.graph.outcomes import NO_ANSWER, Outcome

HEADER_LIMIT_BYTES = 6 * 1024
"""What HAProxy takes well beside an answer's other headers; steps that do not fit are counted instead."""


class StepState(StrEnum):
    """How a step ended for this request."""

    ANSWERED = "Answered"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    """Its condition was not met."""
    MIRRORED = "Mirrored"
    """It was called and nobody waited for it."""
    CANCELLED = "Cancelled"
    """It was given up while it worked, because another step failed or time was up."""


@dataclass
class StepTrace:
    """One step on the way. `status` is None where no container answered."""

    step: str
    target: Target
    state: StepState
    start_ms: float
    duration_ms: float = 0.0
    status: int | None = None
    attempt_count: int = 0

    def document(self) -> dict[str, Any]:
        """The step as JSON has it, without what says nothing."""
        kind = "node" if self.target.kind is TargetKind.NODE else "container"
        document: dict[str, Any] = {"step": self.step, kind: self.target.name, "state": self.state.value}
        if self.status is not None:
            document["status"] = self.status
        document["start_ms"] = round(self.start_ms, 2)
        if self.attempt_count:
            document |= {"duration_ms": round(self.duration_ms, 2), "attempts": self.attempt_count}
        return document


class Recorder:
    """Keeps the trace of one request. `clock` tells seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at_s = clock()
        self.steps: list[StepTrace] = []

    def begin(self, step: str, target: Target, state: StepState = StepState.CANCELLED) -> StepTrace:
        """Note a step that is reached. One that is called counts as cancelled until it is judged."""
        trace = StepTrace(step, target, state, self.elapsed_ms())
        self.steps.append(trace)
        return trace

    def end(self, trace: StepTrace) -> None:
        """Note that a step works no more."""
        trace.duration_ms = self.elapsed_ms() - trace.start_ms

    def judge(self, trace: StepTrace, outcome: Outcome) -> None:
        """Note what came of a step."""
        trace.state = StepState.ANSWERED if outcome.is_good else StepState.FAILED
        trace.status = outcome.answer.status if outcome.answer.status != NO_ANSWER else None

    def elapsed_ms(self) -> float:
        """Milliseconds since the request came."""
        return (self._clock() - self._started_at_s) * 1000


def trace_document(steps: Sequence[StepTrace], total_ms: float) -> dict[str, Any]:
    """The trace as JSON has it."""
    return {"total_ms": round(total_ms, 2), "steps": [step.document() for step in steps]}


def trace_header(steps: Sequence[StepTrace], total_ms: float) -> bytes:
    """Write a trace as a header's value, on one line of ASCII and within the limit."""
    document = trace_document(steps, total_ms)
    encoded = _encode(document)
    while len(encoded) > HEADER_LIMIT_BYTES and document["steps"]:
        document["steps"].pop()
        document["left_out"] = len(steps) - len(document["steps"])
        encoded = _encode(document)
    return encoded


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
