"""How a training job comes to a warm pool, how that ends, and which other job may have it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from raymaker.actors.reports import JobReport, Outcome
from raymaker.platform import transitions
from raymaker.platform.changing import job_updates
from raymaker.platform.phases import IllegalMove
from raymaker.platform.pools import keeping
from raymaker.platform.pools.matching import match_key
from raymaker.platform.pools.warm_pool import WarmPool, WarmPoolStatus
from raymaker.platform.records import TrainingJobRecord
from raymaker.platform.settings import Settings

NOW = 1_000.0
PERIOD_S = 60


def new_job(name: str = "job", account: str = "000000000000", **changes: Any) -> TrainingJobRecord:
    resources = {"InstanceType": "local", "InstanceCount": 1, "KeepAlivePeriodInSeconds": PERIOD_S}
    algorithm = {"TrainingImage": "image", "TrainingInputMode": "File"}
    request = {"RoleArn": "arn:role", "AlgorithmSpecification": algorithm, "ResourceConfig": resources, **changes}
    return transitions.create_training_job(name, f"arn:{name}", account, request, 10.0)


def resources(**changes: Any) -> dict[str, Any]:
    return {"ResourceConfig": {"InstanceType": "local", "InstanceCount": 1, **changes}}


def end(record: TrainingJobRecord, outcome: Outcome, reason: str | None = None) -> TrainingJobRecord:
    said = JobReport("job", record.attempt, outcome.value, "said", NOW, outcome=outcome, failure_reason=reason)
    return transitions.apply_report(record, said, NOW)


def pool_of(record: TrainingJobRecord) -> WarmPool:
    assert record.warm_pool is not None
    return record.warm_pool


STARTED = transitions.start_attempt(new_job(), NOW)
KEPT = end(STARTED, Outcome.COMPLETED)


def test_a_job_has_a_pool_from_its_start_and_leaves_it_at_its_end() -> None:
    assert new_job().warm_pool is None
    assert pool_of(STARTED).status is WarmPoolStatus.IN_USE
    assert pool_of(STARTED).retained_s(NOW + 5) is None
    assert pool_of(KEPT).status is WarmPoolStatus.AVAILABLE
    assert keeping.kept_until(KEPT) == NOW + PERIOD_S
    assert pool_of(KEPT).retained_s(NOW + 5) == 5
    assert pool_of(KEPT).pool_id == pool_of(STARTED).pool_id


def test_a_job_of_the_same_name_has_another_pool() -> None:
    later = transitions.create_training_job("job", "arn", "1", new_job().request, 11.0)
    assert pool_of(transitions.start_attempt(later, NOW)).pool_id != pool_of(STARTED).pool_id


@pytest.mark.parametrize(
    ("outcome", "reason", "status"),
    [
        (Outcome.STOPPED, None, "Available"),
        (Outcome.TIMED_OUT, None, "Available"),
        (Outcome.FAILED, "AlgorithmError: it is broken", "Available"),
        (Outcome.FAILED, "ClientError: no such data", "Available"),
        (Outcome.FAILED, "InternalServerError: the machine is broken", "Terminated"),
    ],
)
def test_machines_that_are_well_are_kept_however_the_job_ended(
    outcome: Outcome, reason: str | None, status: str
) -> None:
    pool = pool_of(end(STARTED, outcome, reason))
    assert (pool.status, pool.retained_s(NOW)) == (status, 0)


def test_a_job_without_a_period_has_no_pool_and_one_that_takes_a_pool_over_ends_it() -> None:
    without = new_job(**resources())
    assert end(transitions.start_attempt(without, NOW), Outcome.COMPLETED).warm_pool is None
    taken = transitions.start_attempt(without, NOW, pool_id="pool")
    assert pool_of(taken) == WarmPool("pool")
    assert pool_of(end(taken, Outcome.COMPLETED)).status is WarmPoolStatus.TERMINATED


def test_a_job_that_never_ran_leaves_nothing() -> None:
    assert transitions.request_stop(new_job(), NOW).warm_pool is None


def test_what_is_kept_is_taken_once() -> None:
    reused = keeping.reuse(KEPT, "next", NOW + 7)
    assert (pool_of(reused).status, pool_of(reused).reused_by) == (WarmPoolStatus.REUSED, "next")
    assert pool_of(reused).retained_s(NOW + 99) == 7
    for record in (reused, STARTED, new_job()):
        with pytest.raises(IllegalMove, match="nothing is kept"):
            keeping.reuse(record, "other", NOW)


def test_a_pool_ends_when_its_time_is_over_as_of_then() -> None:
    assert keeping.expire(KEPT, NOW + PERIOD_S - 1) == KEPT
    ended = pool_of(keeping.expire(KEPT, NOW + 5_000))
    assert (ended.status, ended.reason) == (WarmPoolStatus.TERMINATED, keeping.EXPIRED)
    assert ended.retained_s(NOW + 9_000) == PERIOD_S


def test_a_machine_that_is_gone_ends_its_pool_and_no_other() -> None:
    ended = keeping.lose(KEPT, NOW + 3)
    assert (pool_of(ended).status, pool_of(ended).retained_s(NOW)) == (WarmPoolStatus.TERMINATED, 3)
    assert pool_of(keeping.lose(KEPT, NOW + 5_000)).retained_s(NOW) == PERIOD_S
    reused = keeping.reuse(KEPT, "next", NOW)
    assert keeping.lose(reused, NOW) == reused


def test_a_lost_attempt_goes_on_in_its_pool_and_the_last_one_ends_it() -> None:
    record = STARTED
    for attempt in (1, 2):
        record = transitions.lose_attempt(record, attempt, "machine gone", NOW)
        assert record.warm_pool == STARTED.warm_pool
    assert pool_of(transitions.lose_attempt(record, 3, "machine gone", NOW)).status is WarmPoolStatus.TERMINATED
    stopping = transitions.request_stop(STARTED, NOW)
    assert pool_of(transitions.lose_attempt(stopping, 1, "machine gone", NOW)).status is WarmPoolStatus.TERMINATED


def test_a_job_that_moves_to_other_machines_leaves_its_pool() -> None:
    training = transitions.apply_report(STARTED, JobReport("job", 1, "Training", "", NOW), NOW)
    asked = job_updates.request_update(training, {"ResourceConfig": {"InstanceCount": 2}}, "me", {}, NOW)
    moved = job_updates.move(asked, NOW)
    assert moved.warm_pool is None
    assert pool_of(transitions.start_attempt(moved, NOW)).pool_id != pool_of(STARTED).pool_id


@pytest.mark.parametrize(
    ("period_s", "status", "until"),
    [(600, WarmPoolStatus.AVAILABLE, NOW + 600), (5, WarmPoolStatus.TERMINATED, None), (0, "Terminated", None)],
)
def test_the_period_may_change_after_the_end(period_s: int, status: str, until: float | None) -> None:
    changes = {"ResourceConfig": {"KeepAlivePeriodInSeconds": period_s}}
    changed = job_updates.request_update(KEPT, changes, "me", {}, NOW + 20)
    assert (pool_of(changed).status, keeping.kept_until(changed)) == (status, until)
    assert pool_of(changed).retained_s(NOW + 20) == 20
    for other in ({**changes, "ProfilerConfig": {}}, {"ResourceConfig": {"InstanceCount": 2}}):
        with pytest.raises(IllegalMove):
            job_updates.request_update(KEPT, other, "me", {}, NOW)
    with pytest.raises(IllegalMove):
        job_updates.request_update(keeping.expire(KEPT, NOW + 99), changes, "me", {}, NOW + 99)


def test_every_change_of_status_is_an_event() -> None:
    moves = [new_job(), STARTED, KEPT, keeping.reuse(KEPT, "next", NOW)]
    told = [event.kind for before, after in itertools.pairwise(moves) for event in keeping.news(before, after)]
    assert told == ["WarmPoolInUse", "WarmPoolAvailable", "WarmPoolReused"]
    assert keeping.news(KEPT, KEPT) == []
    (ended,) = keeping.news(KEPT, keeping.expire(KEPT, NOW + 99))
    assert ended.message == "KeepAlivePeriodInSeconds is over: nothing is kept"


VPC = {"SecurityGroupIds": ["sg-2", "sg-1"], "Subnets": ["subnet-1"]}


@pytest.mark.parametrize(
    "other",
    [
        new_job("other", HyperParameters={"rate": "2"}, AlgorithmSpecification={"TrainingImage": "another"}),
        new_job("other", **resources(KeepAlivePeriodInSeconds=9)),
        new_job("other", **resources()),
        new_job("other", **resources(ContainersPerInstance=1, PlacementStrategy="Pack")),
        new_job("other", **resources(MinInstanceCount=1, MaxInstanceCount=1)),
        new_job("other", EnableInterContainerTrafficEncryption=False, EnableNetworkIsolation=True),
        new_job("other", VpcConfig={}),
    ],
)
def test_jobs_match_whatever_they_run(other: TrainingJobRecord) -> None:
    assert match_key(new_job(), Settings()) == match_key(other, Settings())


@pytest.mark.parametrize(
    "other",
    [
        new_job("other", account="222222222222"),
        new_job("other", RoleArn="arn:another"),
        new_job("other", **resources(InstanceCount=2)),
        new_job("other", **resources(InstanceType="ml.m5.large")),
        new_job("other", **resources(VolumeSizeInGB=7)),
        new_job("other", **resources(ContainersPerInstance=2)),
        new_job("other", **resources(MaxInstanceCount=2)),
        new_job("other", VpcConfig=VPC),
        new_job("other", EnableInterContainerTrafficEncryption=True),
        new_job("other", EnableNetworkIsolation=False),
        new_job("other", SessionChainingConfig={"EnableSessionTagChaining": True}),
    ],
)
def test_jobs_do_not_match_that_differ_in_whose_or_what_their_machines_are(other: TrainingJobRecord) -> None:
    assert match_key(new_job(), Settings()) != match_key(other, Settings())


def test_the_order_of_groups_and_subnets_is_no_matter() -> None:
    same = {**VPC, "SecurityGroupIds": ["sg-1", "sg-2"]}
    assert match_key(new_job(VpcConfig=VPC), Settings()) == match_key(new_job(VpcConfig=same), Settings())
