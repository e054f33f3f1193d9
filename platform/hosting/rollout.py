"""How an update takes the traffic over: at once, a canary first, or step by step, and how it goes back. Pure.

A DeploymentConfig is read as a plan; a record says how far the plan was followed. When a move is made is the
reconciler's matter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raymaker.platform.hosting.alarms import Alarm, parse_alarm
from raymaker.platform.records import Deployment, EndpointRecord, EndpointStatus, RolloutStage

ALL_AT_ONCE, CANARY, LINEAR = "ALL_AT_ONCE", "CANARY", "LINEAR"
STEP_SIZES = {ALL_AT_ONCE: None, CANARY: "CanarySize", LINEAR: "LinearStepSize"}
PERCENT = "CAPACITY_PERCENT"


@dataclass(frozen=True)
class Plan:
    """What shares of the traffic the new fleets take, one after the other, the last being 1; times in seconds.

    Each share is kept for `wait_s`, and the last for `termination_wait_s` more, while the old fleets are still there.
    """

    shares: tuple[float, ...] = (1.0,)
    wait_s: float = 0.0
    termination_wait_s: float = 0.0
    timeout_s: float | None = None
    """How long the update may take until it has the last share and has waited; None: as long as it likes."""
    alarms: tuple[Alarm, ...] = ()

    @property
    def whole_wait_s(self) -> float:
        """How long is waited in all."""
        return len(self.shares) * self.wait_s + self.termination_wait_s

    @property
    def is_gradual(self) -> bool:
        """Whether there is a time in which old and new fleets are both up, so that something must choose."""
        return len(self.shares) > 1 or self.whole_wait_s > 0

    def step_wait_s(self, step: int) -> float:
        """How long a step is kept."""
        return self.wait_s + (self.termination_wait_s if step == len(self.shares) - 1 else 0.0)


def plan_of(config: Mapping[str, Any] | None, desired: Deployment) -> Plan:
    """Read a DeploymentConfig that was checked; None: everything at once. Sizes in instances are those of `desired`."""
    config = config or {}
    alarms = config.get("AutoRollbackConfiguration", {}).get("Alarms", [])
    policy = config.get("BlueGreenUpdatePolicy")
    if policy is None:
        return Plan()
    routing = policy["TrafficRoutingConfiguration"]
    size_name = STEP_SIZES[routing["Type"]]
    share = size_share(routing[size_name], desired) if size_name is not None else 1.0
    shares = (share, 1.0) if routing["Type"] == CANARY else linear_shares(share)
    return Plan(
        shares=shares,
        wait_s=routing["WaitIntervalInSeconds"],
        termination_wait_s=policy.get("TerminationWaitInSeconds", 0),
        timeout_s=policy.get("MaximumExecutionTimeoutInSeconds"),
        alarms=tuple(parse_alarm(alarm["AlarmName"]) for alarm in alarms),
    )


def size_share(size: Mapping[str, Any], desired: Deployment) -> float:
    """The share of the traffic that a CapacitySize stands for."""
    whole = 100 if size["Type"] == PERCENT else sum(variant.instance_count for variant in desired.variants)
    return float(size["Value"] / whole) if whole else math.inf


def linear_shares(share: float) -> tuple[float, ...]:
    """The steps of even size up to the whole; the last is smaller where it does not come out even."""
    count = math.ceil(1 / share - 1e-9)
    return (*(share * number for number in range(1, count)), 1.0)


def plan_for(record: EndpointRecord) -> Plan:
    """The plan that an endpoint's update follows."""
    return plan_of(record.deployment_config, record.desired)


def current_share(record: EndpointRecord) -> float:
    """The share of the traffic that goes to the deployment whose front answers."""
    if record.stage is not RolloutStage.SHIFTING or record.rollout is None:
        return 1.0
    return plan_for(record).shares[record.rollout.step]


def front_step(record: EndpointRecord) -> int | None:
    """The step of a rollout that takes its time; None while there is none."""
    if record.stage is not RolloutStage.SHIFTING or record.rollout is None:
        return None
    return record.rollout.step if plan_for(record).is_gradual else None


def routed(deployment: Deployment) -> Deployment:
    """The same deployment with a router before it, so that another's fleets may stand beside its own."""
    return dataclasses.replace(deployment, is_routed=True)


def deployments_of(record: EndpointRecord) -> tuple[Deployment, tuple[Deployment, ...]]:
    """Which deployment's front is to answer now, and whose fleets are to exist beside its own.

    While a rollout that takes its time is prepared, one whose front holds its containers gets a fleet of its own too:
    its front will be a router's.
    """
    desired, deployed = record.desired, record.deployed
    if deployed is None or record.stage is None:
        return desired, ()
    if record.stage is RolloutStage.SHIFTING:
        return desired, (deployed,)
    if record.stage is RolloutStage.PREPARING and deployed.is_simple and plan_for(record).is_gradual:
        return deployed, (desired, routed(deployed))
    return deployed, (desired,)


def fleets_ready(record: EndpointRecord, generation: int, now: float) -> EndpointRecord:
    """Take the news that the desired fleets are up beside the deployed ones: they get the traffic now, or some."""
    if generation != record.generation or record.stage is not RolloutStage.PREPARING or record.deployed is None:
        return record
    return dataclasses.replace(
        record,
        stage=RolloutStage.SHIFTING,
        deployed=routed(record.deployed) if plan_for(record).is_gradual else record.deployed,
        modified_at=now,
    )


def go_on(record: EndpointRecord, generation: int, now: float) -> EndpointRecord:
    """Take the news that a step's traffic flows: begin to wait, and go to the next step once that was long enough.

    The record stays as it is where it is not time yet, and after the last step, which ends like any update.
    """
    rollout = record.rollout
    if generation != record.generation or record.stage is not RolloutStage.SHIFTING or rollout is None:
        return record
    if rollout.step_began_at is None:
        return dataclasses.replace(record, rollout=dataclasses.replace(rollout, step_began_at=now), modified_at=now)
    if has_waited(record, now) and rollout.step < len(plan_for(record).shares) - 1:
        later = dataclasses.replace(rollout, step=rollout.step + 1, step_began_at=None)
        return dataclasses.replace(record, rollout=later, modified_at=now)
    return record


def has_waited(record: EndpointRecord, now: float) -> bool:
    """Tell whether the step that a rollout is at has lasted long enough."""
    rollout = record.rollout
    if rollout is None or rollout.step_began_at is None:
        return False
    return now >= rollout.step_began_at + plan_for(record).step_wait_s(rollout.step)


def is_overdue(record: EndpointRecord, now: float) -> str | None:
    """Say that an update has taken longer than it may; None where it has not."""
    if record.status is not EndpointStatus.UPDATING or record.rollout is None:
        return None
    timeout_s = plan_for(record).timeout_s
    if timeout_s is None or now < record.rollout.began_at + timeout_s:
        return None
    return f"the update did not end within its MaximumExecutionTimeoutInSeconds, {timeout_s:g}"


def returned(record: EndpointRecord, generation: int, now: float) -> EndpointRecord:
    """Take the news that the deployed fleets have all the traffic again: the others may go."""
    if generation != record.generation or record.stage is not RolloutStage.RETURNING or record.deployed is None:
        return record
    return dataclasses.replace(record, desired=record.deployed, stage=None, modified_at=now)


def describe(record: EndpointRecord) -> str | None:
    """Say for people where a rollout is; None where there is none."""
    match record.stage:
        case RolloutStage.PREPARING:
            return f"the fleets of configuration {record.desired.config_name} come up beside those that answer"
        case RolloutStage.RETURNING:
            return "all traffic goes back to the fleets that answered before"
        case RolloutStage.SHIFTING if record.rollout is not None:
            plan, step, name = plan_for(record), record.rollout.step, record.desired.config_name
            return (
                f"step {step + 1} of {len(plan.shares)}: {plan.shares[step]:.0%} of the traffic to configuration {name}"
            )
        case _:
            return None
