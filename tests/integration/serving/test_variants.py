"""Endpoints of several variants on real Ray Serve with real containers, under load: split, shadowed, changed live."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from integration.serving.load import THREADS, Load
from integration.serving.serving_cluster import ServeCluster, process_tree

from raymaker.serving.endpoint import EndpointState
from raymaker.serving.spec import EndpointSpec
from support.faults import eventually


def containers(cluster: ServeCluster, engine: docker.DockerClient, endpoint: str, variant: str) -> list[Container]:
    """The running containers of one variant."""
    labels = cluster.labels(endpoint, f"raymaker.variant={variant}")
    return engine.containers.list(filters={"label": labels}, ignore_removed=True)


def split(cluster: ServeCluster, name: str, a: float, b: float, *, b_count: int = 1, revision: int = 1) -> EndpointSpec:
    """Variants `a` and `b` of these weights that answer with their names, and a shadow that says `a` to everything."""
    made = {
        label: dataclasses.replace(cluster.variant(label, environment={"VERSION": says}), weight=weight)
        for label, says, weight in (("a", "a", a), ("b", "b", b), ("s", "a", a + b))
    }
    b_variant = dataclasses.replace(made["b"], replica_count=b_count)
    whole = cluster.spec(name, revision)
    return dataclasses.replace(whole, variants=(made["a"], b_variant), shadows=(made["s"],))


def test_variants_share_the_traffic_and_are_changed_live_and_lose_only_what_a_killed_container_held(
    cluster: ServeCluster, engine: docker.DockerClient
) -> None:
    name = "split"
    cluster.deploy(split(cluster, name, 90, 10))
    cluster.wait_for(name, EndpointState.HEALTHY)
    with contextlib.closing(cluster.client()) as runtime:
        asked = {"EndpointName": name, "Body": b"", "CustomAttributes": "version"}
        answer = runtime.invoke_endpoint(**asked, TargetVariant="b")
        assert (answer["InvokedProductionVariant"], answer["Body"].read()) == ("b", b"b")
        with pytest.raises(runtime.exceptions.ValidationError, match="no variant s: it has a, b"):
            runtime.invoke_endpoint(**asked, TargetVariant="s")
        with pytest.raises(runtime.exceptions.ModelError, match="the model says no"):
            runtime.invoke_endpoint(EndpointName=name, Body=b"x", CustomAttributes="status 500")

    with Load(cluster.port, name) as load:
        seen = load.count(400)
        expected, spread = 0.1 * seen.total(), (0.09 * seen.total()) ** 0.5
        assert abs(seen[b"b"] - expected) < 5 * spread, seen
        assert load.take_failures() == []

        (victim,) = containers(cluster, engine, name, "a")
        victim.kill("SIGKILL")
        eventually(
            lambda: [c.id for c in containers(cluster, engine, name, "a")] not in ([], [victim.id]), "another container"
        )
        load.count(100)
        lost = load.take_failures()
        assert len(lost) <= THREADS, lost
        assert all("closed the connection" in failure for failure in lost)

        before = [container.id for container in containers(cluster, engine, name, "b")]
        cluster.deploy(split(cluster, name, 0, 100, b_count=2))
        cluster.wait_for(name, EndpointState.HEALTHY)
        load.wait_for(b"b")
        assert set(load.count(200)) == {b"b"}
        assert before[0] in [container.id for container in containers(cluster, engine, name, "b")]
        assert len(containers(cluster, engine, name, "b")) == 2
        assert load.take_failures() == []

        kill_replica(cluster, f"endpoint-{name}:b@1")
        load.count(200)
        assert len(lost := load.take_failures()) <= THREADS, lost
    eventually(lambda: len(containers(cluster, engine, name, "b")) == 3, "another replica starts its container")
    cluster.wait_for(name, EndpointState.HEALTHY)
    cluster.delete(name)
    cluster.wait_for(name, EndpointState.MISSING)
    (orphan,) = containers(
        cluster, engine, name, "b"
    )  # of the killed replica: the reaper, which is not here, would remove it
    orphan.remove(force=True)
    told = [report["message"] for report in cluster.reporter.read() if "Shadow s heard" in report.get("message", "")]
    assert told, "nothing was told of the shadow"


def test_an_endpoint_gets_a_second_variant_and_loses_it_again_and_no_request_is_lost(
    cluster: ServeCluster, engine: docker.DockerClient
) -> None:
    name = "grown"
    first = cluster.spec(name, 1, environment={"VERSION": "one"})
    second = dataclasses.replace(split(cluster, name, 0, 1, revision=2), generation=2)
    third = cluster.spec(name, 3, environment={"VERSION": "three"})
    cluster.deploy(first)
    cluster.wait_for(name, EndpointState.HEALTHY)
    with Load(cluster.port, name) as load:
        load.wait_for(b"one")
        for front, beside, answers in (
            (first, (second,), b"one"),
            (second, (first,), b"b"),
            (second, (), b"b"),
            (third, (second,), b"three"),
            (third, (), b"three"),
        ):
            cluster.deploy(front, *beside)
            cluster.wait_for(name, EndpointState.HEALTHY)
            load.wait_for(answers)
        assert load.failures == []
    asked = {"filters": {"label": cluster.labels(name)}, "ignore_removed": True}
    eventually(lambda: len(engine.containers.list(**asked)) == 1, "only the last container is left")
    cluster.delete(name)
    cluster.wait_for(name, EndpointState.MISSING)


def kill_replica(cluster: ServeCluster, called: str) -> None:
    """Kill the process of one replica. Its container stays."""
    process = next(
        pid
        for pid in process_tree(cluster.pid)
        if f"ServeReplica:{called}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(process, signal.SIGKILL)
