"""What a training job does one after the other, and how its record goes from one to the next. Pure."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from raymaker.platform.records import SecondaryStatus, StatusTransition, TrainingJobRecord

PHASE_ORDER = (
    SecondaryStatus.PENDING,
    SecondaryStatus.RESTARTING,
    SecondaryStatus.STARTING,
    SecondaryStatus.DOWNLOADING_IMAGE,
    SecondaryStatus.DOWNLOADING,
    SecondaryStatus.TRAINING,
    SecondaryStatus.STOPPING,
    SecondaryStatus.UPLOADING,
)
"""An attempt only goes forward through these. Each attempt, and each change of its containers, begins anew."""

REPORTABLE = frozenset(PHASE_ORDER[2:]) - {SecondaryStatus.STOPPING}
"""Those in which an attempt can say that it is."""


class IllegalMove(Exception):
    """The record is in a state from which it cannot be moved so. The message names both."""


def enter(record: TrainingJobRecord, secondary: SecondaryStatus, message: str, now: float) -> TrainingJobRecord:
    """Go to a secondary status, or say something new in the one that the job is in."""
    last = record.transitions[-1]
    if secondary is not last.status:
        closed = dataclasses.replace(last, ended_at=now)
        transitions = (*record.transitions[:-1], closed, StatusTransition(secondary, now, None, message))
    elif message != last.message:
        transitions = (*record.transitions[:-1], dataclasses.replace(last, message=message))
    else:
        return record
    return dataclasses.replace(record, secondary=secondary, transitions=transitions, modified_at=now)


def refuse_move(record: TrainingJobRecord, move: str) -> NoReturn:
    """Raise IllegalMove: the job cannot do that now."""
    state = f"{record.status} ({record.secondary}), attempt {record.attempt}"
    raise IllegalMove(f"training job {record.name} cannot {move}: it is {state}")
