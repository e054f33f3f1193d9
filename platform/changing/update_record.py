"""One change of a training job, as its record keeps it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class UpdateStatus(enum.StrEnum):
    """How far a change of a training job is."""

    PENDING = "Pending"
    """Accepted; its machines are making it ready, or wait for the containers to hear of it."""
    RESTARTING = "Restarting"
    """The containers, or the machines, are being replaced for it."""
    APPLIED = "Applied"
    """In force."""
    FAILED = "Failed"
    """Not made; the job goes on as before, or has ended."""

    @property
    def settled(self) -> bool:
        """Whether nothing more becomes of it."""
        return self in {UpdateStatus.APPLIED, UpdateStatus.FAILED}


@dataclass(frozen=True)
class JobUpdate:
    """One change of a training job. `changes` are the fields of UpdateTrainingJob as they were given.

    `summary` says for people what is other than before. Metrics are the last values before it was asked for, and the
    first ones after it was in force; None where those are not known yet.
    """

    revision: int
    changes: Mapping[str, Any]
    requested_by: str
    requested_at: float
    status: UpdateStatus = UpdateStatus.PENDING
    summary: tuple[str, ...] = ()
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] | None = None
    settled_at: float | None = None
    heard_by: tuple[int, ...] = ()
    failure_reason: str | None = None
