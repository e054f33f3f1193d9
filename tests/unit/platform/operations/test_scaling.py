"""Variants whose instances are counted by their load, and serverless ones, through the API."""

from __future__ import annotations

import pytest

from raymaker.actors.reports import Activity, Latency
from raymaker.actors.spec import Resources
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.database import hosting
from raymaker.platform.database.activity import record_activity
from raymaker.platform.errors import ValidationException
from raymaker.platform.specs import endpoint_spec

ROLE = "arn:aws:iam::123456789012:role/anyone"
SERVERLESS = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}


def create(api, **variant):
    api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i"})
    api(
        "CreateEndpointConfig",
        EndpointConfigName="c",
        ProductionVariants=[{"VariantName": "v", "ModelName": "m"} | variant],
    )
    api("CreateEndpoint", EndpointName="e", EndpointConfigName="c")


def scaled(least, most, first=1, **more):
    scaling = {"Status": "ENABLED", "MinInstanceCount": least, "MaxInstanceCount": most, **more}
    return {"InstanceType": "local", "InitialInstanceCount": first, "ManagedInstanceScaling": scaling}


def only_variant(api):
    with api.context.database.reading() as connection:
        record = hosting.find_endpoint(connection, "e")
    settings = api.context.settings
    return endpoint_spec(record, record.desired, load_catalogue(settings), settings).variants[0]


def change_count(api, count):
    changes = [{"VariantName": "v", "DesiredInstanceCount": count}]
    api("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=changes)


def test_managed_scaling_bounds_a_variants_instances(api):
    create(api, **scaled(1, 4, 2, TargetConcurrency=3.5, ScaleInDelayInSeconds=20))
    found = only_variant(api)
    assert (found.replica_count, found.scaling.min_count, found.scaling.max_count) == (2, 1, 4)
    assert (found.scaling.target_concurrency, found.scaling.scale_in_delay_s) == (3.5, 20)


def test_managed_scaling_that_is_disabled_scales_nothing(api):
    create(api, InstanceType="local", InitialInstanceCount=2, ManagedInstanceScaling={"Status": "DISABLED"})
    assert only_variant(api).scaling is None


def test_a_serverless_variants_instance_follows_its_memory_and_its_requests_are_bounded(api):
    create(api, ServerlessConfig=SERVERLESS)
    found = only_variant(api)
    assert found.instance_type.resources == Resources(2.0, 2 * 1024**3)
    assert (found.scaling.min_count, found.scaling.max_count, found.replica_count) == (0, 5, 1)
    assert (found.max_pending_requests, found.throttles) == (5, True)


def test_provisioned_concurrency_keeps_a_serverless_variant_awake(api):
    create(api, ServerlessConfig={**SERVERLESS, "ProvisionedConcurrency": 2})
    found = only_variant(api)
    assert (found.scaling.min_count, found.replica_count) == (2, 2)


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (scaled(3, 2), "MinInstanceCount 3, InitialInstanceCount 1 and MaxInstanceCount 2 are not in order"),
        (scaled(1, 4, 5), "give Min <= Initial <= Max"),
        (scaled(1, 2, IdleTimeInSeconds=5), "IdleTimeInSeconds needs a MinInstanceCount of 0"),
        (scaled(1, 2, ScaleInPolicy={"Strategy": "IDLE_RELEASE"}), "ScaleInPolicy is not supported"),
        ({"ServerlessConfig": SERVERLESS, "InstanceType": "local"}, "InstanceType does not go with ServerlessConfig"),
        ({"ServerlessConfig": {**SERVERLESS, "MemorySizeInMB": 1500}}, "give a multiple of 1024"),
        ({"ServerlessConfig": {**SERVERLESS, "ProvisionedConcurrency": 6}}, "is above MaxConcurrency 5"),
    ],
)
def test_what_cannot_be_scaled_so_is_refused_with_its_field(api, variant, said):
    with pytest.raises(ValidationException, match=said):
        create(api, **variant)


def test_an_instance_count_moves_within_the_bounds_only(api):
    create(api, **scaled(1, 3))
    api.endpoint_comes_up("e")
    change_count(api, 3)
    api.endpoint_comes_up("e", 2)
    assert only_variant(api).replica_count == 3
    with pytest.raises(ValidationException, match="DesiredInstanceCount is 4: variant v has 1 to 3"):
        change_count(api, 4)


def test_a_weight_alone_is_changed_whatever_the_bounds(api):
    create(api, **scaled(2, 3, 2))
    api.endpoint_comes_up("e")
    changes = [{"VariantName": "v", "DesiredWeight": 7.0}]
    api("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=changes)
    assert (only_variant(api).weight, only_variant(api).replica_count) == (7.0, 2)


def test_an_endpoint_is_described_with_what_its_replicas_said_within_the_last_minute(api):
    create(api, ServerlessConfig=SERVERLESS)
    now = api.context.now()
    for replica, age_s, latency in (
        ("a", 1.0, Latency(30, 0.010, 0.050)),
        ("b", 2.0, Latency(10, 0.030, 0.020)),
        ("long silent", 61.0, Latency(900, 9.0, 9.0)),
    ):
        record_activity(api.context.database, Activity("e", replica, now - age_s, 2, now - age_s, {"v": latency}))
    seen = api("DescribeEndpoint", EndpointName="e")
    assert seen["PendingRequests"] == 4
    assert seen["ProductionVariants"][0]["Signals"] == pytest.approx(
        {"RequestsInLastMinute": 40, "LatencyP50InMilliseconds": 15.0, "LatencyP99InMilliseconds": 50.0}
    )


def test_an_endpoint_whose_replicas_said_nothing_is_described_without_signals(api):
    create(api, ServerlessConfig=SERVERLESS)
    seen = api("DescribeEndpoint", EndpointName="e")
    assert "PendingRequests" not in seen
    assert "Signals" not in seen["ProductionVariants"][0]
