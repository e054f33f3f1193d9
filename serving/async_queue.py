"""Asynchronous invocations that were accepted and are not answered yet, and the seam to where they are kept.

The platform hands an `InvocationQueue` to the replicas. Whoever claims an invocation has it until its lease runs out;
then others may claim it. So each is asked at least once, and only the holder of the last claim writes its answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0


@dataclass(frozen=True)
class AsyncInvocation:
    """One accepted request. Times are epoch seconds. Its input lies at `input_uri`, or is `body`.

    `headers` are those that the model is told.
    """

    id: str
    endpoint_name: str
    accepted_at: float
    expires_at: float
    headers: tuple[tuple[str, str], ...]
    output_uri: str
    failure_uri: str
    inference_id: str
    timeout_s: float
    input_uri: str | None = None
    body: bytes | None = None


@dataclass(frozen=True)
class Claim:
    """An invocation that is this holder's for a while. With a `notice` it is answered, and is still to be told of.

    `attempt` counts the claims of what remains to be done, from 1; `lost_count` those whose lease ran out.
    """

    invocation: AsyncInvocation
    token: str
    attempt: int = 1
    lost_count: int = 0
    notice: Mapping[str, Any] | None = None


class InvocationQueue(Protocol):
    """Where accepted invocations are kept. Durable when a call returns; calls block, also while the store is away.

    The calls with a claim tell whether it still holds, and change nothing where it does not.
    """

    def put(self, invocation: AsyncInvocation) -> None:
        """Accept an invocation. The same one again changes nothing."""

    def claim(self, endpoint_name: str, count: int, lease_s: float) -> list[Claim]:
        """Claim up to `count` invocations that are due and nobody's, the oldest first."""

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a claim for longer."""

    def settle(self, claim: Claim, notice: Mapping[str, Any]) -> bool:
        """Note that the invocation is answered, and that this notice is to be told from now on."""

    def release(self, claim: Claim, delay_s: float) -> bool:
        """Give a claim back, to be claimed again after a while."""

    def finish(self, claim: Claim) -> bool:
        """Forget an invocation: nothing of it remains to be done."""


def delay_before(attempt: int) -> float:
    """Return how long to wait after this many attempts: twice as long each time, up to five minutes."""
    return min(FIRST_DELAY_S * 2.0 ** min(attempt - 1, 20), LONGEST_DELAY_S)
