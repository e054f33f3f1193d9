"""All that stands before an endpoint's backend in one replica: the wire, what is captured, what is answered later.

Glue only. Made where there is an event loop, closed when no request is under way any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raymaker.actors.reports import Activity
from raymaker.actors.storage import StoreConfig
from raymaker.serving.activity import ActivityTeller, Load
from raymaker.serving.async_queue import InvocationQueue
from raymaker.serving.async_worker import open_worker
from raymaker.serving.backend import Backend, Invocation, Scored
from raymaker.serving.capture import open_capture
from raymaker.serving.invocations import Invocations
from raymaker.serving.spec import EndpointSpec


class Front:
    """An endpoint's front in one replica. `tell` hears in words of what was lost or given up, `report` of its load."""

    def __init__(
        self,
        spec: EndpointSpec,
        backend: Backend,
        queue: InvocationQueue,
        *,
        store: StoreConfig,
        tell: Callable[[str], None],
        report: Callable[[Activity], None],
        replica_id: str,
        load: Load | None = None,
    ) -> None:
        self._timeout_s = spec.invocation_timeout_s
        self._capture = open_capture(spec, store, tell)
        self._worker = open_worker(spec, backend, queue, store, tell)
        self.app = Invocations(spec, backend, capture=self._capture, worker=self._worker, load=load)
        """The ASGI application."""
        self._teller = ActivityTeller(
            self.app.load,
            lambda: self.pending_count,
            report,
            endpoint_name=spec.endpoint_name,
            replica_id=replica_id,
            idle_s=spec.idle_s,
            is_watched=spec.step is not None,
        )
        self._teller.start()

    @property
    def pending_count(self) -> int:
        """How many requests its backend works on, those that are answered later among them."""
        return self.app.pending_count + (self._worker.pending_count if self._worker is not None else 0)

    @property
    def longest_timeout_s(self) -> float:
        """How long the longest of them may take."""
        return max(self._timeout_s, self._worker.longest_timeout_s if self._worker is not None else 0.0)

    def keep(self, invocation: Invocation, scored: Scored) -> None:
        """Capture an answer that no client gets, as often as those that one gets. Returns at once."""
        if self._capture is not None:
            self._capture.sample(invocation, scored)

    async def stop_taking(self) -> None:
        """Give asynchronous invocations back, before the backend goes, and tell of no load any more."""
        self._teller.stop()
        if self._worker is not None:
            await self._worker.stop()

    async def close(self) -> None:
        """Write what was captured and is not written yet."""
        if self._capture is not None:
            await asyncio.to_thread(self._capture.close)
