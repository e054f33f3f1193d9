"""One scoring container as its replica sees it: started, asked for its health, replaced where it hangs, stopped.

Ties the keeper, which blocks on threads, to the LocalContainer that requests go through, which lives on the loop.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raymaker.actors.runtime.base import LogLine
from raymaker.actors.scoring import Address
from raymaker.actors.site import Site
from raymaker.serving.keeper import ContainerKeeper
from raymaker.serving.local_container import LocalContainer
from raymaker.serving.spec import EndpointSpec

LOG_GROUP = "/aws/sagemaker/Endpoints"
HEALTH_PERIOD_S = 2.0
SILENCE_S = 3 * HEALTH_PERIOD_S
"""How long an idle container may leave /ping unanswered."""


class KeptContainer:
    """The container of the only variant in `spec`, or one of its several: the one called `hostname`.

    `tell` and `log` hear what happened and what the container said, each with the name of its log stream first.
    Belongs to one event loop.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        site: Site,
        replica_id: str,
        hostname: str | None = None,
        *,
        tell: Callable[[str, str, bool], None],
        log: Callable[[str, Sequence[LogLine]], None],
    ) -> None:
        variant = spec.variants[0]
        stream = "/".join(filter(None, (variant.name, replica_id, hostname)))
        self._tell = functools.partial(tell, stream)
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "keeping")  # of its own: many start and stop at once
        self.local = LocalContainer(
            variant.name,
            log_stream_arn(spec, stream),
            timeout_s=variant.scoring.invocation_timeout_s,
            rise_wait_s=variant.scoring.startup_timeout_s,
        )
        """What asks it."""
        self._keeper = ContainerKeeper(
            spec,
            site,
            replica_id,
            hostname,
            on_address=self._set_address,
            tell=self._tell,
            on_log=functools.partial(log, stream),
        )
        self._answers_seen = 0
        self._last_sign_of_life = 0.0

    @property
    def model_folder(self) -> Path:
        """Where its model lies on this machine, or its models."""
        return self._keeper.model_folder

    async def start(self) -> None:
        """Start it. Raises WorkError; then nothing is left of it."""
        try:
            await self._loop.run_in_executor(self._thread, self._keeper.start)
        except Exception as error:
            self._tell(f"The scoring container did not start: {error}", True)
            raise
        self._last_sign_of_life = self._loop.time()

    async def check(self, pending_count: int, longest_s: float) -> None:
        """Ask it, replace it where it hangs, and raise where this machine should be given up.

        `pending_count` requests may be at work in it, of which one may take `longest_s`.
        """
        await self.local.ping()
        now = self._loop.time()
        if self.local.answer_count != self._answers_seen or not self.local.has_container:
            self._answers_seen = self.local.answer_count
            self._last_sign_of_life = now
        elif is_hung(now - self._last_sign_of_life, pending_count, longest_s):
            self._last_sign_of_life = now
            await self._loop.run_in_executor(self._thread, self._keeper.replace, "it no longer answers GET /ping")
        if self._keeper.given_up:
            raise RuntimeError(f"the scoring container failed {self._keeper.failure_count} times in a row")

    def rest(self, wake: Callable[[], None]) -> Awaitable[None]:
        """Give it no more requests at once, and end it; `wake` is called when somebody asks, to have it `rise`.

        Where it does not run there is nothing to do. What is returned is done once it has ended.
        """
        if not self.local.has_container:
            return asyncio.sleep(0)
        self._tell("The scoring container rests: nobody asks", False)
        self._keeper.expect_rest()
        self.local.rest(wake)
        return self._loop.run_in_executor(self._thread, self._keeper.rest)

    async def rise(self) -> None:
        """Have it started where it rests. Returns before it answers."""
        await asyncio.to_thread(self._keeper.rise)  # not behind its end, which may take long

    async def stop(self) -> None:
        """End it with grace, and leave nothing of it."""
        await self._loop.run_in_executor(self._thread, self._keeper.stop)
        self._thread.shutdown(wait=False)

    def _set_address(self, address: Address | None) -> None:
        self._loop.call_soon_threadsafe(self.local.set_container, address)


def is_hung(silent_s: float, pending_count: int, invocation_timeout_s: float) -> bool:
    """Tell whether a silent container is to be replaced.

    One that works on requests may be silent as long as a request may take: many answer one request at a time, and
    /ping waits its turn.
    """
    allowed_s = SILENCE_S + (invocation_timeout_s if pending_count else 0.0)
    return silent_s > allowed_s


def log_stream_arn(spec: EndpointSpec, stream: str) -> str:
    """Name a container's log stream as CloudWatch Logs would, '' where the endpoint has no ARN."""
    parts = spec.endpoint_arn.split(":")
    if len(parts) < 6:  # noqa: PLR2004 - arn:aws:sagemaker:<region>:<account>:endpoint/<name>
        return ""
    _, partition, _, region, account = parts[:5]
    group = f"{LOG_GROUP}/{spec.endpoint_name}"
    return f"arn:{partition}:logs:{region}:{account}:log-group:{group}:log-stream:{stream}"
