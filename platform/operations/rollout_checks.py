"""What is refused of a DeploymentConfig, and how an update that is under way is described. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting import rollout
from raymaker.platform.hosting.alarms import parse_alarm
from raymaker.platform.operations.naming import as_time
from raymaker.platform.records import Deployment, EndpointRecord, EndpointStatus, RolloutStage

FIELD = "DeploymentConfig"
_ROUTING = f"{FIELD}.BlueGreenUpdatePolicy.TrafficRoutingConfiguration"


def check_deployment_config(config: Mapping[str, Any] | None, desired: Deployment) -> None:
    """Refuse what cannot be followed for `desired`. Raises ValidationException, naming the field and the remedy."""
    if config is None:
        return
    if "RollingUpdatePolicy" in config:
        raise ValidationException(
            f"{FIELD}.RollingUpdatePolicy is not supported here: the new fleet comes up whole. "
            "Use BlueGreenUpdatePolicy with Type LINEAR to move the traffic step by step"
        )
    policy = config.get("BlueGreenUpdatePolicy")
    if policy is not None:
        _check_routing(policy["TrafficRoutingConfiguration"], desired)
    alarms = config.get("AutoRollbackConfiguration", {}).get("Alarms", [])
    for number, alarm in enumerate(alarms):
        path = f"{FIELD}.AutoRollbackConfiguration.Alarms[{number}].AlarmName"
        try:
            parse_alarm(alarm.get("AlarmName", ""))
        except ValueError as error:
            raise ValidationException(f"{path}: {error}") from None
    plan = rollout.plan_of(config, desired)
    if alarms and not plan.whole_wait_s:
        raise ValidationException(
            f"{FIELD}.AutoRollbackConfiguration.Alarms would never be looked at: give "
            "TrafficRoutingConfiguration.WaitIntervalInSeconds or TerminationWaitInSeconds of BlueGreenUpdatePolicy"
        )
    if plan.timeout_s is not None and plan.timeout_s <= plan.whole_wait_s:
        raise ValidationException(
            f"{FIELD}.BlueGreenUpdatePolicy.MaximumExecutionTimeoutInSeconds {plan.timeout_s:g} is too short: "
            f"the steps alone wait for {plan.whole_wait_s:g} s"
        )


def describe_progress(record: EndpointRecord) -> list[dict[str, Any]]:
    """Tell how far the fleets are that take over."""
    progress = record.rollout
    if progress is None:
        return []
    if record.stage is not RolloutStage.SHIFTING:
        status, since = "Creating", progress.began_at
    elif progress.step_began_at is None:
        status, since = "ActivatingTraffic", record.modified_at
    else:
        status, since = "Baking", progress.step_began_at
    return [{"Status": status, "StatusMessage": rollout.describe(record), "StartTime": as_time(since)}]


def is_pending(record: EndpointRecord, deployed: Deployment) -> bool:
    """Tell whether another deployment is on its way."""
    return record.status is EndpointStatus.UPDATING and record.desired.revision != deployed.revision


def _check_routing(routing: Mapping[str, Any], desired: Deployment) -> None:
    kind = routing["Type"]
    wanted = rollout.STEP_SIZES[kind]
    for name in filter(None, rollout.STEP_SIZES.values()):
        if name == wanted and name not in routing:
            raise ValidationException(f"{_ROUTING}.{name} is missing: Type {kind} needs it")
        if name != wanted and name in routing:
            raise ValidationException(f"{_ROUTING}.{name} does not go with Type {kind}: leave it out")
    if wanted is not None and not 0 < rollout.size_share(routing[wanted], desired) < 1:
        raise ValidationException(
            f"{_ROUTING}.{wanted} is all there is, or more ({_size(routing[wanted], desired)}): "
            f"make it smaller, or ask for Type {rollout.ALL_AT_ONCE}"
        )


def _size(size: Mapping[str, Any], desired: Deployment) -> str:
    if size["Type"] == rollout.PERCENT:
        return f"{size['Value']} %"
    return f"{size['Value']} of {sum(variant.instance_count for variant in desired.variants)} instances"
