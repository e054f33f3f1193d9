"""How an endpoint's record falls asleep and wakes, and when nobody is taken to have asked."""

from __future__ import annotations

import dataclasses

import pytest

from raymaker.actors.reports import Activity
from raymaker.platform.hosting import sleep
from raymaker.platform.records import (
    Deployment,
    EndpointRecord,
    EndpointStatus,
    ResolvedContainer,
    ResolvedVariant,
    RolloutStage,
    SleepStage,
)

IDLE_S, NOW = 60.0, 1000.0
SERVERLESS = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2}}


def deployment(*requests: dict[str, object]) -> Deployment:
    return Deployment(
        "c", tuple(ResolvedVariant({"VariantName": "v", **it}, "m", (ResolvedContainer("i"),)) for it in requests)
    )


AWAKE = EndpointRecord(
    name="e",
    arn="arn",
    account="0",
    desired=deployment(SERVERLESS),
    deployed=None,
    status=EndpointStatus.IN_SERVICE,
    generation=3,
    running_counts={"v": 1},
    created_at=NOW,
    modified_at=NOW,
)


def told(replica: str = "r", *, at: float = NOW, pending: int = 0, asked_at: float = NOW - IDLE_S) -> Activity:
    return Activity("e", replica, at, pending, asked_at)


@pytest.mark.parametrize(
    ("reports", "replica_count", "expected"),
    [
        ([told()], 1, True),
        ([told("a"), told("b")], 2, True),
        ([], 1, False),
        ([told("a")], 2, False),
        ([told()], 0, False),
        ([told(pending=1)], 1, False),
        ([told(asked_at=NOW - IDLE_S + 1)], 1, False),
        ([told(at=NOW - 31)], 1, False),
        ([told(at=NOW - 5)], 1, False),
        ([told(at=NOW - 5, asked_at=NOW - 5 - IDLE_S)], 1, True),
        ([told("gone", at=NOW - 31, pending=3), told("here")], 1, True),
    ],
)
def test_nobody_has_asked_where_every_replica_has_just_said_so(reports, replica_count, expected):
    assert sleep.is_idle(reports, replica_count, IDLE_S, NOW) is expected


def test_an_endpoint_at_rest_falls_asleep_and_wakes():
    falling = sleep.fall_asleep(AWAKE, AWAKE.generation)
    assert falling.sleep is SleepStage.FALLING_ASLEEP
    asleep = sleep.be_asleep(falling)
    assert (asleep.sleep, asleep.running_counts, asleep.status) == (SleepStage.ASLEEP, {}, EndpointStatus.IN_SERVICE)
    waking = sleep.wake_up(asleep)
    assert waking.sleep is SleepStage.WAKING
    awake = sleep.be_awake(waking, {"v": 1})
    assert (awake.sleep, awake.wanted_counts) == (None, {"v": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"status": EndpointStatus.UPDATING},
        {"stage": RolloutStage.SHIFTING},
        {"sleep": SleepStage.WAKING},
        {"generation": 7},
    ],
)
def test_an_endpoint_that_changes_does_not_fall_asleep(changes):
    record = dataclasses.replace(AWAKE, **changes)
    assert sleep.fall_asleep(record, AWAKE.generation) is record


def test_who_asks_while_it_falls_asleep_wakes_it_at_once():
    falling = sleep.fall_asleep(AWAKE, AWAKE.generation)
    assert sleep.be_awake(falling, {"v": 1}) is falling
    assert sleep.be_asleep(sleep.wake_up(falling)).sleep is SleepStage.WAKING


def test_one_that_does_not_wake_says_why_and_sleeps_on():
    waking = sleep.wake_up(dataclasses.replace(AWAKE, sleep=SleepStage.ASLEEP))
    assert sleep.wake_failed(waking, waking.generation + 1, "late news") is waking
    failed = sleep.wake_failed(waking, waking.generation, "no such image")
    assert (failed.sleep, failed.failure_reason) == (SleepStage.FALLING_ASLEEP, "It did not wake: no such image")
    assert sleep.wake_up(failed).failure_reason is None


def test_the_reason_of_an_update_that_failed_outlives_a_nap() -> None:
    napping = dataclasses.replace(AWAKE, sleep=SleepStage.ASLEEP, failure_reason="an alarm fired")
    woken = sleep.be_awake(sleep.wake_up(napping), {"v": 1})
    assert (woken.sleep, woken.failure_reason, sleep.why_not_woken(napping)) == (None, "an alarm fired", None)
