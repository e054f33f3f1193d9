"""Answers asynchronous invocations: claims them from the queue, has the model answer, writes the answer, tells of it.

An answer is written whole, at a place that is the invocation's own, and only while its claim holds: however often an
invocation is asked, it has one effect. What fails for good goes to the failure location with its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from raymaker.actors.errors import ObjectNotFound, WorkError
from raymaker.actors.storage import ObjectStore, StoreConfig
from raymaker.serving import runtime_wire as wire
from raymaker.serving.async_queue import AsyncInvocation, Claim, InvocationQueue, delay_before
from raymaker.serving.async_wire import notice_of
from raymaker.serving.backend import Backend, Invocation, Scored
from raymaker.serving.notices import MOST_NOTICES, post_notice
from raymaker.serving.runtime_wire import Refusal, WireAnswer
from raymaker.serving.spec import AsyncSpec, EndpointSpec

logger = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = 2.0
"""How often a worker with nothing to do asks the queue: what this replica accepts itself, it is told at once."""
LEASE_S = 30.0
RENEW_S = 10.0
MOST_LOST_CLAIMS = 3
"""How many workers may be lost over one invocation before it is taken for what kills them."""
INPUT_LIMIT_BYTES = 1024 * 1024 * 1024
STOP_S = 5.0
_PASSING = {429, 503}

Post = Callable[[str, bytes], Awaitable[None]]


def open_worker(
    spec: EndpointSpec, backend: Backend, queue: InvocationQueue, store: StoreConfig, tell: Callable[[str], None]
) -> AsyncWorker | None:
    """Begin to take a replica's asynchronous invocations; None where its endpoint has none. In the event loop only."""
    if spec.asynchronous is None:
        return None
    worker = AsyncWorker(spec.asynchronous, spec.endpoint_name, backend, queue, store=ObjectStore(store), tell=tell)
    worker.start()
    return worker


class AsyncWorker:
    """One replica's worker. Belongs to one event loop; what blocks, runs in threads of its own.

    `tell` hears in words what was given up. `post` sends a notice, and raises OSError where it does not arrive.
    """

    def __init__(
        self,
        spec: AsyncSpec,
        endpoint_name: str,
        backend: Backend,
        queue: InvocationQueue,
        *,
        store: ObjectStore,
        tell: Callable[[str], None],
        post: Post | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._endpoint_name = endpoint_name
        self._backend = backend
        self._queue = queue
        self._store = store
        self._tell = tell
        self._post = post or post_notice
        self._now = now
        self._threads = ThreadPoolExecutor(4 + 2 * spec.max_concurrent, "async-invocations")
        self._tasks: dict[asyncio.Task[None], float] = {}
        """What it works on, and how long each may take."""
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._loop: asyncio.Task[None] | None = None

    @property
    def pending_count(self) -> int:
        """How many invocations it works on."""
        return len(self._tasks)

    @property
    def longest_timeout_s(self) -> float:
        """How long the longest of them may take."""
        return max(self._tasks.values(), default=0.0)

    def start(self) -> None:
        """Begin to take invocations."""
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def accept(self, invocation: AsyncInvocation) -> None:
        """Put an invocation into the queue; it is durable when this returns."""
        await self._in_thread(self._queue.put, invocation)
        self._wake.set()

    async def stop(self) -> None:
        """Take no more, and give back what cannot be finished at once; another replica goes on with it."""
        self._is_stopping = True
        self._wake.set()
        if self._loop is not None:
            await asyncio.wait([self._loop, *self._tasks], timeout=STOP_S)
            for task in (self._loop, *self._tasks):
                task.cancel()
            await asyncio.wait([self._loop, *self._tasks], timeout=STOP_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def take(self) -> int:
        """Claim what there is room for and begin to work on it. Returns how many those are."""
        room = self._spec.max_concurrent - len(self._tasks)
        claims = await self._in_thread(self._queue.claim, self._endpoint_name, room, LEASE_S) if room > 0 else []
        for claim in claims:
            task = asyncio.get_running_loop().create_task(self.work(claim))
            self._tasks[task] = claim.invocation.timeout_s
            task.add_done_callback(self._done)
        return len(claims)

    async def work(self, claim: Claim) -> None:
        """Bring one claimed invocation further. Never raises but when it is cancelled: it then gives the claim back."""
        try:
            async with self._held(claim):
                if claim.notice is None:
                    await self._answer(claim)
                else:
                    await self._tell_of(claim, claim.notice)
        except asyncio.CancelledError:
            await self._in_thread(self._queue.release, claim, 0.0)
            raise
        except Exception:
            logger.exception("asynchronous invocation %s of %s failed", claim.invocation.id, self._endpoint_name)
            await self._in_thread(self._queue.release, claim, delay_before(claim.attempt))

    async def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            try:
                await self.take()
            except Exception:
                logger.exception("the queue of %s cannot be read", self._endpoint_name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._wake.set()

    @contextlib.asynccontextmanager
    async def _held(self, claim: Claim) -> AsyncIterator[None]:
        """Keep the claim while the block runs."""
        over = asyncio.Event()

        async def renew() -> None:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_S):
                        await over.wait()
                        return
                await self._in_thread(self._queue.renew, claim, LEASE_S)

        renewing = asyncio.get_running_loop().create_task(renew())
        try:
            yield
        finally:
            over.set()
            renewing.cancel()

    async def _answer(self, claim: Claim) -> None:
        """Have the model answer, and write what came of it."""
        invocation = claim.invocation
        try:
            scored = await self._score(claim)
        except Refusal as refusal:
            if refusal.answer.status in _PASSING:
                await self._in_thread(self._queue.release, claim, delay_before(claim.attempt))
            else:
                await self._end(claim, invocation.failure_uri, refusal.answer.body, reason=_message(refusal.answer))
            return
        if scored.status >= 400:  # noqa: PLR2004 - HTTP's errors
            failure = wire.model_error(scored.status, scored.body, scored.log_stream_arn)
            await self._end(claim, invocation.failure_uri, failure.body, reason=_message(failure))
        else:
            content_type = dict(scored.headers).get(b"content-type", b"").decode("latin-1")
            await self._end(claim, invocation.output_uri, scored.body, content_type=content_type)

    async def _score(self, claim: Claim) -> Scored:
        """Fetch the input and ask the model. Raises Refusal, with a passing status where it is worth another try."""
        invocation = claim.invocation
        if self._now() >= invocation.expires_at:
            raise Refusal(wire.error("RequestExpired", "It was not answered within RequestTTLSeconds.", status=408))
        if claim.lost_count >= MOST_LOST_CLAIMS:
            raise Refusal(wire.model_failed(f"{MOST_LOST_CLAIMS} replicas were lost while they worked on it", ""))
        try:
            body = await self._in_thread(self._read_input, invocation)
        except ObjectNotFound as error:
            raise Refusal(wire.invalid(f"InputLocation: {error}")) from error
        except WorkError as error:
            raise Refusal(wire.invalid(f"InputLocation cannot be read: {error}")) from error
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in invocation.headers]
        try:
            async with asyncio.timeout(invocation.timeout_s):
                return await self._backend.invoke(Invocation(headers, body, invocation.timeout_s))
        except TimeoutError:
            raise Refusal(wire.model_failed(f"it took longer than {invocation.timeout_s:g} s", "")) from None

    def _read_input(self, invocation: AsyncInvocation) -> bytes:
        if invocation.input_uri is None:
            return invocation.body or b""
        return self._store.read_bytes(invocation.input_uri, INPUT_LIMIT_BYTES)

    async def _end(
        self, claim: Claim, uri: str, content: bytes, *, content_type: str | None = None, reason: str | None = None
    ) -> None:
        """Write the answer or the failure, whole, and only while the claim holds; then tell of it where that is asked.

        A place that cannot be written is tried again until the invocation has expired.
        """
        if not await self._in_thread(self._queue.renew, claim, LEASE_S):
            return
        try:
            await self._in_thread(self._store.write_bytes, uri, content)
        except WorkError as error:
            if self._now() < claim.invocation.expires_at:
                await self._in_thread(self._queue.release, claim, delay_before(claim.attempt))
            else:
                self._tell(f"The answer to asynchronous invocation {claim.invocation.id} was lost: {error}")
                await self._in_thread(self._queue.finish, claim)
            return
        notice = notice_of(claim.invocation, content_type=content_type, failure_reason=reason, now=self._now())
        if self._topic_of(notice) is None:
            await self._in_thread(self._queue.finish, claim)
        elif await self._in_thread(self._queue.settle, claim, notice):
            await self._tell_of(dataclasses.replace(claim, attempt=1), notice)

    async def _tell_of(self, claim: Claim, notice: Mapping[str, Any]) -> None:
        """Send a notice; one that does not arrive is tried again later, by whoever claims it then."""
        topic = self._topic_of(notice)
        try:
            if topic is not None:
                await self._post(topic, json.dumps(notice).encode())
        except OSError as error:
            if claim.attempt < MOST_NOTICES:
                await self._in_thread(self._queue.release, claim, delay_before(claim.attempt))
                return
            self._tell(
                f"Nobody could be told how asynchronous invocation {claim.invocation.id} ended: {topic}: {error}"
            )
        await self._in_thread(self._queue.finish, claim)

    def _topic_of(self, notice: Mapping[str, Any]) -> str | None:
        return self._spec.error_topic if notice["invocationStatus"] == "Failed" else self._spec.success_topic

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _message(answer: WireAnswer) -> str:
    return str(json.loads(answer.body)["Message"])
