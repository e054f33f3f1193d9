"""A warm pool: what is kept of a job's machines after its end, for a job that matches. As SageMaker's API has it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class WarmPoolStatus(enum.StrEnum):
    """How it stands with a job's warm pool, in SageMaker's words."""

    IN_USE = "InUse"
    """The job has its machines and has not ended."""
    AVAILABLE = "Available"
    """The job has ended; its machines are kept for one that matches."""
    REUSED = "Reused"
    """Another job has them now."""
    TERMINATED = "Terminated"
    """Nothing is kept any more, or nothing was."""

    @property
    def is_live(self) -> bool:
        """Whether the pool is this job's, and there."""
        return self in {WarmPoolStatus.IN_USE, WarmPoolStatus.AVAILABLE}


@dataclass(frozen=True)
class WarmPool:
    """A job's part in a warm pool. `pool_id` stays the same from job to job, and is never used for another pool.

    It was kept from `available_at` to `ended_at` (epoch seconds, None before). `reason` says why it ended.
    """

    pool_id: str
    status: WarmPoolStatus = WarmPoolStatus.IN_USE
    available_at: float | None = None
    ended_at: float | None = None
    reused_by: str | None = None
    reason: str = ""

    def retained_s(self, now: float) -> int | None:
        """Whole seconds for which machines were kept with nothing to run; None before the job's end."""
        if self.status is WarmPoolStatus.IN_USE:
            return None
        if self.available_at is None:
            return 0
        return max(0, round((now if self.ended_at is None else self.ended_at) - self.available_at))


@dataclass(frozen=True)
class KeptFor:
    """Whose a pool is: its job, and until when it is kept (epoch seconds), None while that job has not ended."""

    job_name: str
    until: float | None = None
