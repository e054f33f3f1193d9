"""What ranks hear of a change, who counts as having heard, and what nobody has heard of being taken back."""

from __future__ import annotations

import threading

from raymaker.actors.exchange.changes import Changes, Revision
from raymaker.actors.exchange.raymaker_exchange.changes import Change, Listening

FIRST = Revision(1, {"rate": "1"}, 1)
SECOND = Revision(2, {"rate": "2"}, 2)


def test_a_rank_is_handed_what_is_newer_than_it_knows_and_has_then_heard():
    changes = Changes(FIRST)
    assert not changes.wait(0, 1, 0.0)
    assert changes.take(0, 1) is None
    changes.publish(SECOND)
    assert changes.wait(0, 1, 0.0)
    assert changes.heard(2) == (), "to wait is not to have heard"
    assert changes.take(0, 1) == SECOND
    assert changes.heard(2) == (0,)
    assert changes.heard(1) == (0,)


def test_whoever_waits_is_woken():
    changes = Changes()
    found = []
    waiting = threading.Thread(target=lambda: found.append(changes.wait(3, 0, 30.0)))
    waiting.start()
    changes.publish(FIRST)
    waiting.join(10)
    assert found == [True]


def test_what_nobody_has_heard_of_is_taken_back_and_what_somebody_has_is_not():
    changes = Changes(FIRST)
    changes.publish(SECOND)
    assert changes.take_back(2, FIRST)
    assert changes.take(0, 1) is None
    changes.publish(SECOND)
    assert changes.take(0, 1) == SECOND
    assert not changes.take_back(2, FIRST)
    assert changes.take(1, 0) == SECOND


def test_a_rank_that_was_told_by_an_earlier_hub_has_heard():
    changes = Changes(FIRST)
    changes.publish(SECOND)
    assert not changes.wait(0, 2, 0.0)
    assert changes.heard(2) == (0,)


def test_nobody_has_heard_of_what_there_is_not():
    changes = Changes(FIRST)
    assert not changes.wait(0, 99, 0.0)
    changes.publish(SECOND)
    assert changes.heard(2) == ()


class Scripted:
    """A hub that answers what it is told to, and remembers what it was asked."""

    def __init__(self, *answers: dict | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, float]] = []

    def changes(self, since: int, wait_s: float) -> dict | None:
        self.asked.append((since, wait_s))
        return self.answers.pop(0) if self.answers else None


def told(revision: int, hyperparameters_revision: int, code: str | None = None, code_revision: int = 0) -> dict:
    return {
        "revision": revision,
        "hyperparameters": {"rate": "2"},
        "hyperparameters_revision": hyperparameters_revision,
        "code": code,
        "code_revision": code_revision,
    }


def test_a_listener_is_told_once_and_what_came_together_as_one():
    source = Scripted(told(3, 2, "/code/3", 3), None)
    listening = Listening(source, 1)
    assert listening.hear(0.0) == Change(3, {"rate": "2"}, "/code/3", ("hyperparameters", "code"))
    assert listening.hear(0.0) is None
    assert [since for since, _ in source.asked] == [1, 3]


def test_what_was_known_before_is_not_among_what_changed():
    listening = Listening(Scripted(told(3, 1, "/code/3", 3)), 2)
    change = listening.hear(0.0)
    assert change is not None
    assert change.changed == ("code",)


def test_a_listener_asks_again_while_no_hub_answers():
    source = Scripted(None, told(1, 1))
    pauses: list[float] = []
    change = Listening(source, 0, pauses.append).hear(30.0)
    assert change is not None
    assert len(pauses) == 1
    assert len(source.asked) == 2
