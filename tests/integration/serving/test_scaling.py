"""A fleet that Serve counts by its load, on real Ray Serve with real containers: more while many ask, fewer after."""

from __future__ import annotations

import dataclasses

import docker
import pytest
from integration.serving.load import Load
from integration.serving.serving_cluster import ServeCluster

from raymaker.serving.endpoint import EndpointState
from raymaker.serving.scaling import ScalingSpec
from support.faults import eventually


@pytest.mark.parametrize("is_routed", [False, True], ids=["simple", "behind a router"])
@pytest.mark.long
def test_instances_follow_the_load_within_bounds_and_no_request_is_lost(
    cluster: ServeCluster, engine: docker.DockerClient, *, is_routed: bool
) -> None:
    name = "scaled-behind" if is_routed else "scaled"
    scaling = ScalingSpec(1, 2, target_concurrency=0.05, scale_out_delay_s=1.0, scale_in_delay_s=3.0)
    scaled = dataclasses.replace(cluster.variant("main", environment={"VERSION": "one"}), scaling=scaling)
    idle = dataclasses.replace(cluster.variant("idle", environment={"VERSION": "none"}), weight=0.0)
    variants = (scaled, idle) if is_routed else (scaled,)
    cluster.deploy(dataclasses.replace(cluster.spec(name), variants=variants))
    cluster.wait_for(name, EndpointState.HEALTHY)

    def count() -> int:
        labels = cluster.labels(name, "raymaker.variant=main")
        return len(engine.containers.list(filters={"label": labels}, ignore_removed=True))

    assert count() == 1
    with Load(cluster.port, name) as load:
        eventually(lambda: count() == 2, lambda: f"a second instance: {cluster.observe(name)}", 120)
        assert set(load.count(200)) == {b"one"}
        assert load.take_failures() == []
    eventually(lambda: count() == 1, lambda: f"one instance is left: {cluster.observe(name)}", 120)
    cluster.wait_for(name, EndpointState.HEALTHY)
    cluster.delete(name)
    cluster.wait_for(name, EndpointState.MISSING)
