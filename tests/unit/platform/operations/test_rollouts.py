"""DeploymentConfig through the API: what is refused, what is retained, and how a rollout is described."""

from __future__ import annotations

from typing import Any

import pytest

from raymaker.platform.database import hosting
from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting import rollout

ROLE = "arn:aws:iam::123456789012:role/anyone"
ROUTING = "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration"


def size(value: int, unit: str = "CAPACITY_PERCENT") -> dict[str, Any]:
    return {"Type": unit, "Value": value}


def config(kind: str = "CANARY", alarms: tuple[str, ...] = (), wait: int = 60, **more: Any) -> dict[str, Any]:
    sizes = {name: more.pop(name) for name in ("CanarySize", "LinearStepSize") if name in more}
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, **sizes}
    made: dict[str, Any] = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **more}}
    if alarms:
        made["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": alarm} for alarm in alarms]}
    return made


CANARY = config(CanarySize=size(10))


@pytest.fixture
def served(api):
    """The API with an endpoint `e` in service, of two instances, and a second configuration."""
    api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i"})
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "local", "InitialInstanceCount": 2}
    for name in ("c", "c2"):
        api("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant])
    api("CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    api.endpoint_comes_up("e")
    return api


def update(api, **request: Any) -> dict[str, Any]:
    api("UpdateEndpoint", EndpointName="e", EndpointConfigName="c2", **request)
    return api("DescribeEndpoint", EndpointName="e")


def move(api, change: Any) -> dict[str, Any]:
    with api.context.database.transaction() as connection:
        hosting.move_endpoint(connection, "e", change)
    return api("DescribeEndpoint", EndpointName="e")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"RollingUpdatePolicy": {"MaximumBatchSize": size(50), "WaitIntervalInSeconds": 0}},
            "RollingUpdatePolicy is not",
        ),
        (config(), f"{ROUTING}.CanarySize is missing: Type CANARY needs it"),
        (config("LINEAR", CanarySize=size(10)), f"{ROUTING}.CanarySize does not go with Type LINEAR"),
        (config("ALL_AT_ONCE", LinearStepSize=size(10)), f"{ROUTING}.LinearStepSize does not go with"),
        (config(CanarySize=size(100)), rf"{ROUTING}.CanarySize is all there is, or more \(100 %\)"),
        (config(CanarySize=size(2, "INSTANCE_COUNT")), r"or more \(2 of 2 instances\): make it smaller"),
        (config(alarms=("mine",), CanarySize=size(5)), r"Alarms\[0\].AlarmName: 'mine' is no condition"),
        (config("ALL_AT_ONCE", ("5XXErrorRate > 0",), 0), "Alarms would never be looked at"),
        ({"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "5XXErrorRate > 0"}]}}, "never be looked at"),
        (
            config(wait=400, CanarySize=size(5), MaximumExecutionTimeoutInSeconds=600),
            "MaximumExecutionTimeoutInSeconds 600 is too short: the steps alone wait for 800 s",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name_and_nothing_is_lost(served, wrong, message):
    with pytest.raises(ValidationException, match=message):
        update(served, DeploymentConfig=wrong)
    with pytest.raises(ValidationException, match=message):
        served("CreateEndpoint", EndpointName="other", EndpointConfigName="c", DeploymentConfig=wrong)
    found = served("DescribeEndpoint", EndpointName="e")
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", "c")
    assert found.get("LastDeploymentConfig") is None


def test_a_rollout_is_described_while_it_goes_on(served):
    found = update(served, DeploymentConfig=CANARY)
    assert (found["EndpointConfigName"], found["LastDeploymentConfig"]) == ("c", CANARY)

    def status(described: dict[str, Any]) -> tuple[str, str]:
        (variant,) = described["PendingDeploymentSummary"]["ProductionVariants"]
        (said,) = variant["VariantStatus"]
        return said["Status"], said["StatusMessage"]

    assert status(found) == ("Creating", "the fleets of configuration c2 come up beside those that answer")
    now = served.context.now()
    step = "step 1 of 2: 10% of the traffic to configuration c2"
    assert status(move(served, lambda record: rollout.fleets_ready(record, 2, now))) == ("ActivatingTraffic", step)
    assert status(move(served, lambda record: rollout.go_on(record, 2, now))) == ("Baking", step)
    said = [event["Message"] for event in served("ListEvents", EndpointName="e")["Events"]]
    assert step in said


def test_the_last_config_is_retained_where_that_is_asked_for_and_else_is_not(served):
    served("CreateEndpoint", EndpointName="new", EndpointConfigName="c", DeploymentConfig=CANARY)
    assert served("DescribeEndpoint", EndpointName="new")["LastDeploymentConfig"] == CANARY
    update(served, DeploymentConfig=CANARY)
    served.endpoint_comes_up("e", 2)
    assert update(served, RetainDeploymentConfig=True)["LastDeploymentConfig"] == CANARY
    served.endpoint_comes_up("e", 3)
    assert update(served).get("LastDeploymentConfig") is None


def test_one_may_not_ask_for_a_config_and_for_the_last_one(served):
    with pytest.raises(ValidationException, match="leave one of them out"):
        update(served, DeploymentConfig=CANARY, RetainDeploymentConfig=True)
