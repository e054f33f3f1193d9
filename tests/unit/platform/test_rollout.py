"""Plans of rollouts, and the moves of a record that follows one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from raymaker.platform import transitions
from raymaker.platform.hosting import rollout
from raymaker.platform.records import Deployment, EndpointRecord, ResolvedContainer, ResolvedVariant, RolloutStage

NOW = 1000.0


def deployment(name: str, *variants: str, instance_count: int = 1) -> Deployment:
    made = [
        ResolvedVariant({"VariantName": variant}, "m", (ResolvedContainer("i"),), instance_count=instance_count)
        for variant in variants or ("v",)
    ]
    return Deployment(name, tuple(made))


def policy(kind: str, value: int | None = None, unit: str = "CAPACITY_PERCENT", **more: Any) -> dict[str, Any]:
    routing: dict[str, Any] = {"Type": kind, "WaitIntervalInSeconds": more.pop("wait", 10)}
    if (name := rollout.STEP_SIZES[kind]) is not None:
        routing[name] = {"Type": unit, "Value": value}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **more}}


@pytest.mark.parametrize(
    ("config", "shares", "whole_wait_s"),
    [
        (None, (1.0,), 0),
        ({}, (1.0,), 0),
        (policy("ALL_AT_ONCE"), (1.0,), 10),
        (policy("ALL_AT_ONCE", TerminationWaitInSeconds=5), (1.0,), 15),
        (policy("CANARY", 5), (0.05, 1.0), 20),
        (policy("CANARY", 1, "INSTANCE_COUNT"), (0.25, 1.0), 20),
        (policy("LINEAR", 50), (0.5, 1.0), 20),
        (policy("LINEAR", 40), (0.4, 0.8, 1.0), 30),
        (policy("LINEAR", 1, "INSTANCE_COUNT"), (0.25, 0.5, 0.75, 1.0), 40),
    ],
)
def test_a_deployment_config_is_read_as_the_shares_that_the_new_fleets_take(config, shares, whole_wait_s):
    plan = rollout.plan_of(config, deployment("new", instance_count=4))
    assert plan.shares == pytest.approx(shares)
    assert plan.whole_wait_s == whole_wait_s
    assert plan.is_gradual is (config not in (None, {}))


@pytest.mark.parametrize("percent", range(1, 100))
def test_every_linear_size_ends_with_all_and_takes_no_tiny_last_step(percent):
    shares = rollout.linear_shares(percent / 100)
    steps = [after - before for before, after in zip((0.0, *shares), shares, strict=False)]
    assert shares[-1] == 1.0
    assert all(1e-6 < step <= percent / 100 + 1e-9 for step in steps)


IN_SERVICE = transitions.endpoint_healthy(
    transitions.create_endpoint("e", "arn:e", "0", deployment("old"), 0.0), 1, {}, NOW
)
CANARY = policy("CANARY", 10, wait=60, TerminationWaitInSeconds=30, MaximumExecutionTimeoutInSeconds=600)


def updating(config: dict[str, Any] | None = CANARY, desired: Deployment | None = None) -> EndpointRecord:
    return transitions.update_endpoint(IN_SERVICE, desired or deployment("new"), NOW, config)


def shown(record: EndpointRecord) -> tuple[str, list[str], float]:
    """The front's deployment and what stands beside it, each with a mark where it is a router's, and the share."""
    front, beside = rollout.deployments_of(record)
    names = [each.config_name + ("" if each.is_simple else "*") for each in (front, *beside)]
    return names[0], names[1:], rollout.current_share(record)


def test_a_canary_is_followed_step_by_step() -> None:
    record = updating()
    assert shown(record) == ("old", ["new*", "old*"], 1.0)
    record = rollout.fleets_ready(record, 2, NOW)
    assert shown(record) == ("new*", ["old*"], 0.1)
    assert (record.stage, rollout.front_step(record)) == (RolloutStage.SHIFTING, 0)
    record = rollout.go_on(record, 2, NOW + 5)
    assert rollout.go_on(record, 2, NOW + 64) == record
    record = rollout.go_on(record, 2, NOW + 65)
    assert shown(record) == ("new*", ["old*"], 1.0)
    record = rollout.go_on(record, 2, NOW + 70)
    assert rollout.go_on(record, 2, NOW + 1000) == record, "the last step is ended by whoever sees it healthy"
    assert [rollout.has_waited(record, NOW + later) for later in (159, 160)] == [False, True]
    done = transitions.endpoint_healthy(record, 2, {}, NOW + 160)
    assert (shown(done), done.rollout, done.deployed) == (("new*", [], 1.0), None, done.desired)


def test_the_next_update_without_a_config_needs_no_router() -> None:
    routed = dataclasses.replace(IN_SERVICE, deployed=rollout.routed(deployment("old")))
    record = transitions.update_endpoint(routed, deployment("new"), NOW)
    assert shown(record) == ("new", ["old*"], 1.0)
    assert rollout.front_step(record) is None


def test_an_update_that_takes_no_time_goes_as_it_always_did() -> None:
    assert updating(None).stage is None
    assert updating(policy("ALL_AT_ONCE", wait=0)).stage is None
    split = updating(None, deployment("new", "a", "b"))
    assert shown(split) == ("old", ["new*"], 1.0)
    assert shown(rollout.fleets_ready(split, 2, NOW)) == ("new*", ["old"], 1.0)


def test_a_failed_rollout_gives_the_traffic_back_before_its_fleets_go() -> None:
    shifting = rollout.go_on(rollout.fleets_ready(updating(), 2, NOW), 2, NOW)
    record = transitions.endpoint_failed(shifting, 2, "an alarm", NOW + 1)
    assert (record.status, record.generation, record.failure_reason) == ("RollingBack", 3, "an alarm")
    assert shown(record) == ("old*", ["new*"], 1.0)
    assert rollout.returned(record, 2, NOW) == record, "late news"
    record = rollout.returned(record, 3, NOW + 2)
    assert shown(record) == ("old*", [], 1.0)
    done = transitions.endpoint_healthy(record, 3, {}, NOW + 3)
    assert (done.status, done.desired.config_name, done.failure_reason) == ("InService", "old", "an alarm")
    failed = transitions.endpoint_failed(record, 3, "no machine", NOW + 3)
    assert (failed.status, failed.desired.config_name, failed.stage) == ("UpdateRollbackFailed", "old", None)


def test_one_that_fails_before_it_had_traffic_leaves_the_front_as_it_was() -> None:
    record = transitions.endpoint_failed(updating(), 2, "no /ping", NOW + 1)
    assert shown(record) == ("old", [], 1.0)


def test_a_way_back_that_fails_too_is_told_and_the_old_one_stays_wanted() -> None:
    shifting = rollout.fleets_ready(updating(), 2, NOW)
    record = transitions.endpoint_failed(shifting, 2, "an alarm", NOW + 1)
    failed = transitions.endpoint_failed(record, 3, "no machine", NOW + 2)
    assert (failed.status, failed.desired.config_name, failed.stage) == ("UpdateRollbackFailed", "old", None)
    assert failed.failure_reason == "an alarm Going back failed too: no machine"


def test_an_update_that_takes_too_long_is_overdue_until_it_has_ended() -> None:
    record = updating()
    assert rollout.is_overdue(record, NOW + 599) is None
    assert "MaximumExecutionTimeoutInSeconds, 600" in (rollout.is_overdue(record, NOW + 600) or "")
    assert rollout.is_overdue(updating(policy("CANARY", 10)), NOW + 1e6) is None
    done = transitions.endpoint_healthy(record, 2, {}, NOW)
    assert rollout.is_overdue(transitions.change_weights(done, {}, NOW + 700), NOW + 700) is None


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (IN_SERVICE, None),
        (updating(), "the fleets of configuration new come up beside those that answer"),
        (rollout.fleets_ready(updating(), 2, NOW), "step 1 of 2: 10% of the traffic to configuration new"),
        (
            transitions.endpoint_failed(rollout.fleets_ready(updating(), 2, NOW), 2, "r", NOW),
            "all traffic goes back to the fleets that answered before",
        ),
    ],
)
def test_it_is_said_where_a_rollout_is(record, expected):
    assert rollout.describe(record) == expected


def test_late_news_of_another_generation_moves_nothing() -> None:
    record = updating()
    assert rollout.fleets_ready(record, 1, NOW) == record
    shifting = rollout.fleets_ready(record, 2, NOW)
    assert rollout.go_on(shifting, 1, NOW) == shifting
    assert rollout.fleets_ready(shifting, 2, NOW) == shifting
