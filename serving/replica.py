"""The Serve deployment that owns one scoring container: glue between Serve, `keeper.py` and `invocations.py`."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence

from ray import serve

from raymaker.actors.reports import EndpointReporter
from raymaker.actors.runtime.base import LogLine
from raymaker.actors.scoring import Address
from raymaker.actors.site import Site
from raymaker.serving.invocations import Invocations
from raymaker.serving.keeper import ContainerKeeper
from raymaker.serving.proxy import keep_handle_calls_local
from raymaker.serving.spec import EndpointSpec

logger = logging.getLogger(__name__)

LOG_GROUP = "/aws/sagemaker/Endpoints"
HEALTH_PERIOD_S = 2.0
SILENCE_S = 3 * HEALTH_PERIOD_S
"""How long an idle container may leave /ping unanswered."""
LAST_WORDS_S = 5.0


@serve.ingress()
class ScoringReplica:
    """One replica of one endpoint. Serve makes it, asks for its health and ends it."""

    def __init__(self, spec: EndpointSpec, site: Site, reporter: EndpointReporter) -> None:
        keep_handle_calls_local()
        self._spec = spec
        self._site = site
        self._reporter = reporter
        self._herald = Herald()
        self._replica_id = serve.get_replica_context().replica_id.unique_id
        self._stream = f"{spec.variant_name}/{self._replica_id}"
        self._keeper: ContainerKeeper | None = None
        self._answers_seen = 0
        self._last_sign_of_life = 0.0

    async def __serve_build_asgi_app__(self) -> Invocations:
        """Start the container; Serve sends requests to what this returns, and only then. Raises WorkError."""
        loop = asyncio.get_running_loop()
        self._invocations = invocations = Invocations(self._spec, log_stream_arn(self._spec, self._stream))

        def set_address(address: Address | None) -> None:
            loop.call_soon_threadsafe(invocations.set_container, address)

        self._keeper = ContainerKeeper(
            self._spec, self._site, self._replica_id, on_address=set_address, tell=self._tell, on_log=self._log
        )
        try:
            await asyncio.to_thread(self._keeper.start)
        except Exception as error:
            self._tell(f"The scoring container did not start: {error}", True)
            await asyncio.to_thread(self._herald.finish)
            raise
        self._last_sign_of_life = loop.time()
        return invocations

    async def check_health(self) -> None:
        """Ask the container, replace it where it hangs, and raise where this machine should be given up."""
        if self._keeper is None:
            return
        await self._invocations.ping()
        now = asyncio.get_running_loop().time()
        if self._invocations.answer_count != self._answers_seen:
            self._answers_seen = self._invocations.answer_count
            self._last_sign_of_life = now
        elif is_hung(
            now - self._last_sign_of_life, self._invocations.pending_count, self._spec.scoring.invocation_timeout_s
        ):
            self._last_sign_of_life = now
            await asyncio.to_thread(self._keeper.replace, "it no longer answers GET /ping")
        if self._keeper.given_up:
            raise RuntimeError(f"the scoring container failed {self._keeper.failure_count} times in a row")

    async def __del__(self) -> None:
        """End the container with grace. Serve calls this once no request is under way any more."""
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.stop)
            await asyncio.to_thread(self._herald.finish)

    def _tell(self, message: str, failed: bool) -> None:  # noqa: FBT001 - the keeper's own signature
        spec = self._spec
        text = f"{self._stream}: {message}"
        self._herald.tell(lambda: self._reporter.event(spec.endpoint_name, spec.generation, text, failed=failed))

    def _log(self, lines: Sequence[LogLine]) -> None:
        self._reporter.log(f"{LOG_GROUP}/{self._spec.endpoint_name}", self._stream, lines)


class Herald:
    """Makes calls that may block for long, in order, on a thread of its own."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="herald", daemon=True)
        self._thread.start()

    def tell(self, call: Callable[[], None]) -> None:
        """Have `call` made, some time. Never blocks."""
        self._calls.put(call)

    def finish(self) -> None:
        """Wait a little for what was not told yet."""
        self._calls.put(None)
        self._thread.join(LAST_WORDS_S)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                logger.exception("a report was lost")


def is_hung(silent_s: float, pending_count: int, invocation_timeout_s: float) -> bool:
    """Tell whether a silent container is to be replaced.

    One that works on requests may be silent as long as a request may take: many answer one request at a time, and
    /ping waits its turn.
    """
    allowed_s = SILENCE_S + (invocation_timeout_s if pending_count else 0.0)
    return silent_s > allowed_s


def log_stream_arn(spec: EndpointSpec, stream: str) -> str:
    """Name a replica's log stream as CloudWatch Logs would, '' where the endpoint has no ARN."""
    parts = spec.endpoint_arn.split(":")
    if len(parts) < 6:  # noqa: PLR2004 - arn:aws:sagemaker:<region>:<account>:endpoint/<name>
        return ""
    _, partition, _, region, account = parts[:5]
    group = f"{LOG_GROUP}/{spec.endpoint_name}"
    return f"arn:{partition}:logs:{region}:{account}:log-group:{group}:log-stream:{stream}"
