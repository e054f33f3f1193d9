"""What can come of a step or a node, good or bad, and whether trying again may help. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.document import Target

NO_ANSWER = 0
"""The status of a step that gave no answer, as ModelError has it."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0


class Origin(Enum):
    """Where a failure comes from, which decides what a client is told."""

    CONTAINER = "the container answered with an error"
    SILENCE = "the container gave no answer"
    REFUSAL = "the endpoint could not call the container"
    REQUEST = "the request is not what the graph needs"
    GRAPH = "the graph could not go on"


@dataclass(frozen=True)
class Failure:
    """Why there is no good answer. `step` is the path of the innermost step that failed, `target` whom it called."""

    origin: Origin
    reason: str
    step: str = ""
    target: Target | None = None


class Outcome(NamedTuple):
    """What came of a step or a node. With a failure, `answer` is the error: the container's own where it gave one."""

    answer: ContainerAnswer
    failure: Failure | None = None

    @property
    def is_good(self) -> bool:
        """Whether it can be gone on with."""
        return self.failure is None


def failed(origin: Origin, status: int, reason: str) -> Outcome:
    """The outcome where there is no container's answer to show."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    return Outcome(ContainerAnswer(status, headers, reason.encode()), Failure(origin, reason))


def is_worth_another_try(outcome: Outcome) -> bool:
    """Tell whether a failure may pass: no answer, too many requests, an error of the server's own."""
    if outcome.failure is None or outcome.failure.origin in {Origin.REQUEST, Origin.GRAPH}:
        return False
    status = outcome.answer.status
    return status in {NO_ANSWER, 429} or status >= 500  # noqa: PLR2004 - HTTP's own border


def pause_before_retry_s(failed_count: int) -> float:
    """How long to wait after so many failed attempts: doubled each time, up to a second."""
    return float(min(FIRST_PAUSE_S * 2 ** (failed_count - 1), LONGEST_PAUSE_S))
