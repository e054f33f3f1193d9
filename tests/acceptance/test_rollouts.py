"""Updates that take their time, on a whole platform under load: step by step, and back where something is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from support.faults import eventually
from support.hosting import Hosting, Traffic, ask
from support.platform import Platform

CANARY = {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 25}, "WaitIntervalInSeconds": 12}
LINEAR = {"Type": "LINEAR", "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 2}
HALF_FOR_LONG = {**CANARY, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 3600}


@pytest.fixture
def endpoint(hosting: Hosting) -> str:
    """An endpoint of one container, which answers "one"."""
    name = hosting.create(hosting.config({"SAY": "one"}))
    assert hosting.settle(name)["EndpointStatus"] == "InService"
    return name


@pytest.mark.long
def test_a_canary_then_all_then_step_by_step_and_no_request_is_lost(
    platform: Platform, hosting: Hosting, endpoint: str
) -> None:
    with Traffic(hosting, endpoint) as traffic:
        update(hosting, endpoint, {"SAY": "two"}, CANARY, termination_s=2)
        assert baking(hosting, endpoint)["StatusMessage"].startswith("step 1 of 2: 25% of the traffic")
        seen = traffic.count_answers(40)
        assert 0 < seen["two"] < 0.65 * seen.total(), seen  # five standard deviations about a quarter
        found = hosting.settle(endpoint)
        assert found["EndpointStatus"] == "InService"
        assert set(traffic.count_answers(50)) == {"two"}
        eventually(lambda: len(hosting.containers(endpoint)) == 1, "the old container is gone")

        routing = found["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
        assert routing == CANARY
        update(hosting, endpoint, {"SAY": "three"}, LINEAR)
        assert hosting.settle(endpoint)["EndpointStatus"] == "InService"
        assert set(traffic.count_answers(50)) == {"three"}

        config = hosting.config({"SAY": "four"})
        hosting.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
        assert hosting.settle(endpoint)["EndpointStatus"] == "InService"
        assert set(traffic.count_answers(50)) == {"four"}
        eventually(lambda: len(hosting.containers(endpoint)) == 1, "the one container holds the front again")
    assert traffic.failures == []
    said = platform.cli("events", endpoint).stdout
    assert "step 1 of 2: 50% of the traffic" in said
    assert "step 2 of 2: 100% of the traffic" in said


def test_a_slow_model_is_taken_back_by_its_latency_alarm_and_no_request_is_lost(
    hosting: Hosting, endpoint: str
) -> None:
    with Traffic(hosting, endpoint) as traffic:
        slow = {"SAY": "slow", "TAKES_S": "0.4"}
        update(hosting, endpoint, slow, HALF_FOR_LONG, alarms=["LatencyP99InMilliseconds > 300"])
        eventually(lambda: traffic.last.startswith(b"slow="), "the canary answers")
        found = hosting.settle(endpoint)
        assert found["EndpointStatus"] == "InService"
        assert "alarm LatencyP99InMilliseconds > 300 fired" in found["FailureReason"]
        assert set(traffic.count_answers(50)) == {"one"}
        eventually(lambda: len(hosting.containers(endpoint)) == 1, "the slow container is gone")
    assert traffic.failures == []


def test_a_model_that_fails_is_taken_back_by_its_error_alarm(hosting: Hosting, endpoint: str) -> None:
    with Traffic(hosting, endpoint) as traffic:
        update(hosting, endpoint, {"SAY": "bad", "FAILS": "1"}, HALF_FOR_LONG, alarms=["5XXErrorRate > 0.1"])
        eventually(lambda: traffic.failures, "the canary fails requests")
        found = hosting.settle(endpoint)
        assert "alarm 5XXErrorRate > 0.1 fired: 1 over the last" in found["FailureReason"]
        failed = len(traffic.failures)
        assert set(traffic.count_answers(100)) == {"one"}
        assert len(traffic.failures) == failed, "nothing fails any more"
    assert all("(ModelError)" in failure and "bad=" in failure for failure in traffic.failures), traffic.failures


def test_a_canary_whose_container_dies_is_taken_back(hosting: Hosting, endpoint: str) -> None:
    with Traffic(hosting, endpoint) as traffic:
        update(hosting, endpoint, {"SAY": "dies"}, HALF_FOR_LONG)
        baking(hosting, endpoint)
        (new,) = [container for container in hosting.containers(endpoint) if ask(container).startswith(b"dies")]
        new.kill()
        found = hosting.settle(endpoint)
        assert found["EndpointStatus"] == "InService"
        assert "ended" in found["FailureReason"], found["FailureReason"]
        assert set(traffic.count_answers(50)) == {"one"}
    assert len(traffic.failures) <= 1, traffic.failures  # the one that was under way in it


def update(
    hosting: Hosting,
    name: str,
    environment: dict[str, str],
    routing: dict[str, Any],
    *,
    termination_s: int = 0,
    alarms: list[str] | None = None,
) -> None:
    """Ask for another container, rolled out as `routing` says."""
    config: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": termination_s}
    }
    if alarms is not None:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": alarm} for alarm in alarms]}
    made = hosting.config(environment)
    hosting.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=made, DeploymentConfig=config)


def baking(hosting: Hosting, name: str) -> dict[str, Any]:
    """Wait until the first step's traffic flows, and return its status."""

    def look() -> dict[str, Any] | None:
        pending = hosting.describe(name).get("PendingDeploymentSummary")
        status: dict[str, Any] = pending["ProductionVariants"][0]["VariantStatus"][0] if pending else {}
        return status if status.get("Status") == "Baking" else None

    found: dict[str, Any] = eventually(look, "the first step's traffic flows", 60)
    return found
