"""An attempt's own decisions: what it says of an end, in how many characters, and when it may go its own way."""

from __future__ import annotations

import time

import pytest

from raymaker.actors.attempt import Attempt
from raymaker.actors.crew import Alone
from raymaker.actors.reports import FAILURE_REASON_CHARS, shorten
from raymaker.actors.runtime.base import ExitStatus
from raymaker.actors.spec import InstanceType, Resources, TrainingSpec


def test_a_short_reason_stays_as_it_is() -> None:
    assert shorten("AlgorithmError: no labels, exit code: 3") == "AlgorithmError: no labels, exit code: 3"


def test_a_long_reason_keeps_its_beginning_and_its_end_within_the_limit() -> None:
    reason = "AlgorithmError: begin " + "x" * 5000 + " end, exit code: 1"
    cut = shorten(reason)
    assert len(cut) <= FAILURE_REASON_CHARS
    assert cut.startswith("AlgorithmError: begin")
    assert cut.endswith("end, exit code: 1")


class RunningInstance:
    """A machine whose one container runs until it is stopped."""

    def __init__(self) -> None:
        self.spec = TrainingSpec(
            "job", "arn", "here", 1, InstanceType("local", Resources()), "file:///out", image="one"
        )
        self.ended: dict[int, ExitStatus] = {}
        self.failure = None

    def started_at(self) -> float:
        return time.time()

    def wait(self, timeout_s: float, known_count: int | None = None) -> dict[int, ExitStatus]:
        return self.ended

    def stop(self, grace_s: float | None = None) -> None:
        self.ended = {0: ExitStatus(0)}


class ScriptedUpdating:
    """A change that the other machine makes ready while this one has given its word already."""

    def __init__(self, *looks: object) -> None:
        self.looks = list(looks)

    def is_bound(self) -> bool:
        return bool(self.looks)

    def look(self) -> object:
        return self.looks.pop(0)


class StoppingCrew(Alone):
    """Two machines that are asked to stop; the other has come to its end, or has not."""

    def __init__(self, *, other_ended: bool) -> None:
        super().__init__(1)
        self.request_stop()
        self.other_ended = other_ended

    def has_come(self, name: str) -> bool:
        return self.other_ended and name == "end"


@pytest.mark.parametrize("other_ended", [True, False])
def test_a_machine_that_gave_its_word_for_a_change_keeps_it_unless_another_has_ended(*, other_ended: bool) -> None:
    instance, wanted = RunningInstance(), object()
    attempt = Attempt(instance, None, StoppingCrew(other_ended=other_ended), "")  # type: ignore[arg-type]
    update, ending = attempt._wait(ScriptedUpdating(None, wanted))  # type: ignore[arg-type]
    assert (update is wanted, ending.stopped) == (not other_ended, other_ended)
