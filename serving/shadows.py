"""Shadow traffic: copies of requests that have been answered, sent to a shadow variant and compared with the answer.

Never in the way: a copy is sent when the client's answer is there, few are under way at once, what is too much is
counted and left. What came of it is handed on; keeping it is data capture's matter.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from raymaker.serving.backend import Invocation, Scored
from raymaker.serving.runtime_wire import Refusal

logger = logging.getLogger(__name__)

MOST_UNDER_WAY = 32

Ask = Callable[[Invocation], Awaitable[Scored]]


@dataclass(frozen=True)
class Comparison:
    """One request that a shadow heard too. `shadow` is None where it gave no answer; times are in seconds."""

    variant: str
    invocation: Invocation
    live: Scored
    live_s: float
    shadow: Scored | None
    shadow_s: float

    @property
    def agrees(self) -> bool:
        """Whether both answered the same bytes with the same status."""
        return self.shadow is not None and (self.shadow.status, self.shadow.body) == (self.live.status, self.live.body)


@dataclass(frozen=True)
class Tally:
    """What has come of the copies to one shadow. `left_out` were too many at once."""

    heard: int = 0
    agreed: int = 0
    failed: int = 0
    left_out: int = 0
    live_s: float = 0.0
    shadow_s: float = 0.0

    def add(self, seen: Comparison) -> Tally:
        """The tally with one more comparison."""
        answered = seen.shadow is not None and seen.shadow.status < 400  # noqa: PLR2004 - HTTP's errors
        return dataclasses.replace(
            self,
            heard=self.heard + 1,
            agreed=self.agreed + seen.agrees,
            failed=self.failed + (not answered),
            live_s=self.live_s + seen.live_s,
            shadow_s=self.shadow_s + seen.shadow_s,
        )

    def describe(self, variant: str) -> str:
        """Say it for people."""
        mean = f", on average {1000 * self.shadow_s / self.heard:.1f} ms for {1000 * self.live_s / self.heard:.1f} ms"
        return (
            f"Shadow {variant} heard {self.heard} requests: {self.agreed} answered the same, {self.failed} failed, "
            f"{self.left_out} left out as too many at once{mean if self.heard else ''}"
        )


class Mirror:
    """Sends copies and compares. Belongs to one event loop. `on_comparison` must return at once."""

    def __init__(self, on_comparison: Callable[[Comparison], None] = lambda _: None) -> None:
        self._on_comparison = on_comparison
        self._under_way: set[asyncio.Task[None]] = set()
        self.tallies: dict[str, Tally] = {}

    def copy(self, variant: str, invocation: Invocation, live: Scored, live_s: float, ask: Ask) -> None:
        """Send a copy to a shadow, unless too many are under way. Returns at once."""
        if len(self._under_way) >= MOST_UNDER_WAY:
            tally = self.tallies.get(variant, Tally())
            self.tallies[variant] = dataclasses.replace(tally, left_out=tally.left_out + 1)
            return
        task = asyncio.get_running_loop().create_task(self._compare(variant, invocation, live, live_s, ask))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _compare(self, variant: str, invocation: Invocation, live: Scored, live_s: float, ask: Ask) -> None:
        loop = asyncio.get_running_loop()
        began, answer = loop.time(), None
        try:
            answer = await ask(invocation)
        except Refusal as refusal:
            logger.debug("shadow %s gave no answer: %s", variant, refusal)
        except Exception:
            logger.exception("a copy for shadow %s was lost", variant)
        seen = Comparison(variant, invocation, live, live_s, answer, loop.time() - began)
        self.tallies[variant] = self.tallies.get(variant, Tally()).add(seen)
        self._on_comparison(seen)
