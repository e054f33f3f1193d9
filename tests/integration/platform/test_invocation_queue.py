"""The queue of asynchronous invocations on real databases: durable, claimed by one at a time, taken over when lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from raymaker.platform.database.engine import Database
from raymaker.platform.database.invocations import DatabaseQueue
from raymaker.serving.async_queue import AsyncInvocation


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(database_url: str, clock: Clock) -> Iterator[DatabaseQueue]:
    database = Database(database_url)
    database.migrate()
    yield DatabaseQueue(database, clock)
    database.dispose()


def invocation(name: str, clock: Clock, endpoint: str = "e", **facts) -> AsyncInvocation:
    places = {"output_uri": f"s3://b/{name}.out", "failure_uri": f"s3://b/{name}-error.out", "inference_id": name}
    times = {"accepted_at": clock.now, "expires_at": clock.now + 3600, "timeout_s": 60.0}
    return AsyncInvocation(name, endpoint, headers=(("accept", "text/csv"),), **{**times, **places, **facts})


def names(claims) -> list[str]:
    return [claim.invocation.id for claim in claims]


def test_an_invocation_comes_back_as_it_was_accepted_and_only_once(queue: DatabaseQueue, clock: Clock) -> None:
    one = invocation("one", clock, body=b"\x00\xff")
    queue.put(one)
    queue.put(one)
    (claim,) = queue.claim("e", 10, 30)
    assert claim.invocation == one
    assert (claim.attempt, claim.lost_count, claim.notice) == (1, 0, None)
    assert queue.claim("e", 10, 30) == []
    assert queue.finish(claim)
    clock.now += 100
    assert queue.claim("e", 10, 30) == []
    assert not queue.renew(claim, 30)


def test_the_oldest_are_claimed_first_and_each_endpoint_has_its_own(queue: DatabaseQueue, clock: Clock) -> None:
    for name, endpoint in (("a", "e"), ("b", "e"), ("c", "other"), ("d", "e")):
        clock.now += 1
        queue.put(invocation(name, clock, endpoint, input_uri="s3://b/in"))
    assert names(queue.claim("e", 2, 30)) == ["a", "b"]
    assert names(queue.claim("e", 2, 30)) == ["d"]
    assert names(queue.claim("other", 2, 30)) == ["c"]


def test_a_claim_that_is_not_renewed_is_taken_over_and_its_holder_can_do_nothing_more(
    queue: DatabaseQueue, clock: Clock
) -> None:
    queue.put(invocation("one", clock, input_uri="s3://b/in"))
    (lost,) = queue.claim("e", 1, 30)
    clock.now += 29
    assert queue.renew(lost, 30)
    clock.now += 29
    assert queue.claim("e", 1, 30) == []
    clock.now += 1
    (mine,) = queue.claim("e", 1, 30)
    assert (mine.attempt, mine.lost_count) == (2, 1)
    for late in (queue.renew(lost, 30), queue.settle(lost, {}), queue.release(lost, 0), queue.finish(lost)):
        assert not late
    assert queue.renew(mine, 30)


def test_what_is_given_back_is_due_later_and_is_not_lost(queue: DatabaseQueue, clock: Clock) -> None:
    queue.put(invocation("one", clock, input_uri="s3://b/in"))
    (claim,) = queue.claim("e", 1, 30)
    assert queue.release(claim, 10)
    assert queue.claim("e", 1, 30) == []
    clock.now += 10
    (again,) = queue.claim("e", 1, 30)
    assert (again.attempt, again.lost_count) == (2, 0)


def test_an_answered_invocation_keeps_its_notice_until_it_is_told(queue: DatabaseQueue, clock: Clock) -> None:
    queue.put(invocation("one", clock, input_uri="s3://b/in"))
    (claim,) = queue.claim("e", 1, 30)
    assert queue.settle(claim, {"invocationStatus": "Completed"})
    clock.now += 31
    (claim,) = queue.claim("e", 1, 30)
    assert claim.notice == {"invocationStatus": "Completed"}
    assert claim.attempt == 2


def test_of_many_that_claim_at_once_each_invocation_has_one_holder(queue: DatabaseQueue, clock: Clock) -> None:
    for number in range(20):
        queue.put(invocation(f"{number:02}", clock, input_uri="s3://b/in"))
    with ThreadPoolExecutor(8) as threads:
        claimed = [name for part in threads.map(lambda _: names(queue.claim("e", 5, 30)), range(8)) for name in part]
    assert len(claimed) == len(set(claimed))
    rest = names(queue.claim("e", 20, 30))
    assert sorted(claimed + rest) == [f"{number:02}" for number in range(20)]
