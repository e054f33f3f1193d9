"""The worker of asynchronous invocations, with a queue, a store and a model that are small classes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from raymaker.actors.errors import ObjectNotFound, StorageError
from raymaker.serving import runtime_wire as wire
from raymaker.serving.async_queue import AsyncInvocation, Claim
from raymaker.serving.async_worker import MOST_LOST_CLAIMS, MOST_NOTICES, AsyncWorker
from raymaker.serving.backend import Invocation, Scored
from raymaker.serving.runtime_wire import Refusal
from raymaker.serving.spec import AsyncSpec

NOW = 1_700_000_000.0
HOOK = "http://hook"
INVOCATION = AsyncInvocation(
    id="id-1",
    endpoint_name="e",
    accepted_at=NOW,
    expires_at=NOW + 60,
    headers=(("content-type", "text/csv"),),
    output_uri="s3://b/id-1.out",
    failure_uri="s3://b/id-1-error.out",
    inference_id="id-1",
    timeout_s=30,
    input_uri="s3://b/in",
)
CLAIM = Claim(INVOCATION, "token")


class World:
    """Queue, store, model and webhook in one; each can be told to misbehave, and all is written down."""

    def __init__(self) -> None:
        self.objects = {"s3://b/in": b"1,2"}
        self.done: list[tuple[str, Any]] = []
        self.waiting: list[Claim] = []
        self.holds = True
        self.refuses_writes = False
        self.hook_is_down = False
        self.posted: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.asked: list[Invocation] = []
        self.score: Callable[[], Scored] = lambda: Scored(200, [(b"content-type", b"a/b")], b"ok", "v")
        self.now = NOW

    def worker(self, **spec: Any) -> AsyncWorker:
        asked = AsyncSpec("s3://b", **{"success_topic": HOOK, "error_topic": HOOK, **spec})
        options = {"post": self.post, "now": lambda: self.now}
        untyped: Any = self
        return AsyncWorker(asked, "e", untyped, untyped, store=untyped, tell=self.told.append, **options)

    def put(self, invocation: AsyncInvocation) -> None:
        self.waiting.append(Claim(invocation, "token"))

    def claim(self, endpoint_name: str, count: int, lease_s: float) -> list[Claim]:
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def renew(self, claim: Claim, lease_s: float) -> bool:
        return self.holds

    def settle(self, claim: Claim, notice: Mapping[str, Any]) -> bool:
        self.done.append(("settle", notice["invocationStatus"]))
        return self.holds

    def release(self, claim: Claim, delay_s: float) -> bool:
        self.done.append(("release", delay_s))
        return self.holds

    def finish(self, claim: Claim) -> bool:
        self.done.append(("finish", claim.invocation.id))
        return self.holds

    def read_bytes(self, uri: str, limit_bytes: int) -> bytes:
        if uri not in self.objects:
            raise ObjectNotFound(f"no object lies at {uri}")
        return self.objects[uri]

    def write_bytes(self, uri: str, content: bytes) -> None:
        if self.refuses_writes:
            raise StorageError("access was denied")
        self.objects[uri] = content

    async def invoke(self, invocation: Invocation) -> Scored:
        self.asked.append(invocation)
        return self.score()

    async def post(self, url: str, content: bytes) -> None:
        if self.hook_is_down:
            raise OSError("connection refused")
        self.posted.append(json.loads(content))

    def work(self, claim: Claim = CLAIM, **spec: Any) -> None:
        asyncio.run(self._work(claim, spec))

    async def _work(self, claim: Claim, spec: Mapping[str, Any]) -> None:
        worker = self.worker(**spec)
        await worker.work(claim)
        await worker.stop()


def raising(error: Exception) -> Callable[[], Scored]:
    def raise_it() -> Scored:
        raise error

    return raise_it


def test_an_answer_is_written_noted_told_and_forgotten_in_this_order() -> None:
    world = World()
    world.work()
    assert world.asked == [Invocation([(b"content-type", b"text/csv")], b"1,2", 30)]
    assert world.objects["s3://b/id-1.out"] == b"ok"
    assert world.posted[0]["invocationStatus"] == "Completed"
    assert world.posted[0]["responseParameters"] == {"contentType": "a/b", "outputLocation": "s3://b/id-1.out"}
    assert world.done == [("settle", "Completed"), ("finish", "id-1")]


def test_without_a_topic_nobody_is_told() -> None:
    world = World()
    world.work(success_topic=None)
    assert (world.done, world.posted) == ([("finish", "id-1")], [])


def test_an_error_of_the_model_an_input_that_is_not_there_and_an_expired_request_go_to_the_failure_location() -> None:
    for change, code, said in (
        ({"score": lambda: Scored(500, [], b"no csv", "v")}, "no csv", "no csv"),
        ({"objects": {}}, "s3://b/in", "no object lies at"),
        ({"now": NOW + 60}, "RequestTTLSeconds", "RequestTTLSeconds"),
        ({"score": raising(Refusal(wire.model_failed("it died", "arn")))}, "it died", "it died"),
    ):
        world = World()
        vars(world).update(change)
        world.work()
        assert "s3://b/id-1.out" not in world.objects
        failure = world.objects["s3://b/id-1-error.out"].decode()
        assert code in failure
        assert said in world.posted[0]["failureReason"]
        assert world.done == [("settle", "Failed"), ("finish", "id-1")]


def test_a_model_that_is_not_ready_and_a_place_that_refuses_are_tried_again_later() -> None:
    for change in (
        {"score": raising(Refusal(wire.not_ready("starting")))},
        {"refuses_writes": True},
        {"score": raising(RuntimeError("a bug"))},
    ):
        world = World()
        vars(world).update(change)
        world.work(dataclasses.replace(CLAIM, attempt=3))
        assert world.done == [("release", 4.0)]


def test_an_answer_that_can_be_written_nowhere_is_given_up_when_it_has_expired_and_told() -> None:
    world = World()
    world.refuses_writes, world.now = True, NOW + 60
    world.work()
    assert world.done == [("finish", "id-1")]
    assert "access was denied" in world.told[0]


def test_who_has_lost_the_claim_writes_nothing() -> None:
    world = World()
    world.holds = False
    world.work()
    assert list(world.objects) == ["s3://b/in"]
    assert world.done == []


def test_what_kills_its_workers_again_and_again_is_not_asked_any_more() -> None:
    world = World()
    world.work(dataclasses.replace(CLAIM, lost_count=MOST_LOST_CLAIMS))
    assert world.asked == []
    assert "replicas were lost" in world.posted[0]["failureReason"]


def test_a_notice_that_does_not_arrive_is_told_later_and_given_up_at_last_with_a_word() -> None:
    world = World()
    world.hook_is_down = True
    world.work()
    assert world.done == [("settle", "Completed"), ("release", 1.0)]
    settled = dataclasses.replace(CLAIM, notice={"invocationStatus": "Completed"}, attempt=MOST_NOTICES)
    world.work(settled)
    assert world.done[2:] == [("finish", "id-1")]
    assert "http://hook: connection refused" in world.told[0]
    assert len(world.asked) == 1, "an answered invocation is not asked again"


def test_no_more_are_taken_than_may_be_worked_on_at_once() -> None:
    async def story() -> None:
        world = World()
        hold = asyncio.Event()

        async def invoke(_: Invocation) -> Scored:
            await hold.wait()
            return world.score()

        world.invoke = invoke
        worker = world.worker(max_concurrent=2)
        for number in range(3):
            await worker.accept(dataclasses.replace(INVOCATION, id=f"id-{number}"))
        assert await worker.take() == 2
        assert await worker.take() == 0
        assert (worker.pending_count, worker.longest_timeout_s) == (2, 30)
        hold.set()
        while worker.pending_count:  # noqa: ASYNC110 - tasks that end by themselves
            await asyncio.sleep(0)
        assert await worker.take() == 1
        await worker.stop()

    asyncio.run(story())
