"""An engine and a watched container put together, until all objects are through or something ends them before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raymaker.actors.reports import Outcome
from raymaker.actors.scoring import Address, ScoringContainer
from raymaker.actors.storage import ObjectStore
from raymaker.serving.transform.calls import Caller, ContainerGone
from raymaker.serving.transform.container import WatchedContainer
from raymaker.serving.transform.engine import MOST_OBJECTS, Engine
from raymaker.serving.transform.limits import Limits
from raymaker.serving.transform.plan import Task
from raymaker.serving.transform.processing import Processor
from raymaker.serving.transform.spec import TransformSpec
from raymaker.serving.transform.tally import Tally

REPORT_S = 1.0
SPARE_THREADS = 4


class Session:
    """One run of an event loop. `report` tells how far it is; what it raises ends the session."""

    def __init__(
        self,
        spec: TransformSpec,
        store: ObjectStore,
        container: ScoringContainer,
        *,
        limits: Limits,
        folder: Path,
        tally: Tally,
        note: Callable[[str, str], None],
        report: Callable[[], None],
        is_stop_requested: Callable[[], bool],
    ) -> None:
        self._spec = spec
        self._store = store
        self._container = container
        self._limits = limits
        self._folder = folder
        self._tally = tally
        self._note = note
        self._report = report
        self._is_stop_requested = is_stop_requested

    async def run(self, tasks: Sequence[Task], address: Address, deadline: float) -> Outcome:
        """Transform until all objects are through, the job is to stop or its time (epoch seconds) is up.

        Raises what the container was given up for, and what `report` raises.
        """
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(MOST_OBJECTS + SPARE_THREADS, "transform-io"))
        hung = asyncio.Event()
        caller = Caller(
            self._headers(),
            concurrency=self._limits.max_concurrency,
            timeout_s=self._spec.timeout_s,
            max_retries=self._spec.max_retries,
            on_hung=hung.set,
        )
        watched = self._watch(caller, loop)
        watched.watch(address)
        running = asyncio.create_task(self._engine(caller).run(tasks))
        try:
            return await self._follow(running, deadline, hung, watched)
        except ContainerGone as gone:
            raise gone.__cause__ or gone from None
        finally:
            running.cancel()
            await asyncio.wait([running])
            await asyncio.to_thread(watched.stop)

    async def _follow(
        self, running: asyncio.Task[None], deadline: float, hung: asyncio.Event, watched: WatchedContainer
    ) -> Outcome:
        """Look now and then how far it is, until it has to end."""
        while True:
            done, _ = await asyncio.wait([running], timeout=REPORT_S)
            if done:
                running.result()
                return Outcome.COMPLETED
            if self._is_stop_requested():
                return Outcome.STOPPED
            if time.time() >= deadline:
                return Outcome.TIMED_OUT
            if hung.is_set():
                hung.clear()
                await asyncio.to_thread(watched.replace)
            await asyncio.to_thread(self._report)

    def _watch(self, caller: Caller, loop: asyncio.AbstractEventLoop) -> WatchedContainer:
        def on_address(address: Address | None) -> None:
            loop.call_soon_threadsafe(caller.set_container, address)

        def on_lost(reason: Exception) -> None:
            loop.call_soon_threadsafe(caller.give_up, reason)

        return WatchedContainer(
            self._container,
            on_address=on_address,
            on_lost=on_lost,
            tell=lambda message: self._note("Container", message),
            answer_count=lambda: caller.answer_count,
        )

    def _engine(self, caller: Caller) -> Engine:
        self._folder.mkdir(parents=True, exist_ok=True)
        return Engine(
            self._store,
            caller,
            source=self._spec.input,
            limits=self._limits,
            processor=Processor.of(self._spec),
            folder=self._folder,
            tally=self._tally,
        )

    def _headers(self) -> list[tuple[bytes, bytes]]:
        found = {"content-type": self._spec.input.content_type, "accept": self._spec.output.accept}
        return [(name.encode(), value.encode()) for name, value in found.items() if value]
