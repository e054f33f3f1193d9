"""A cluster that grows: Ray's own autoscaler adds nodes for jobs that wait.

Its nodes are processes of this machine, which Ray's provider for laptops starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
from botocore.exceptions import ClientError

from support.faults import eventually
from support.jobs import Jobs, jobs_on
from support.platform import Platform, running_platform
from support.servers import free_port

pytestmark = pytest.mark.long

NODE_CPUS = 3
MOST_NODES = 2
GROWN_S = 120.0
GONE_S = 120.0
"""A machine waits for half a minute on a node that was added, and Ray for its idle time."""
HEAD_ID = "f" * 51 + "00000"
"""What Ray's provider for laptops calls the node that was there before."""
VARIABLES = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}
TYPES = f"""
whole_node = {{ cpus = {NODE_CPUS}, memory_gib = 0 }}
"""


def cluster_configuration(gcs_address: str) -> dict[str, object]:
    """What `ray up` takes, for a cluster whose nodes are processes."""
    return {
        "cluster_name": "growing",
        "max_workers": MOST_NODES,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": gcs_address,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "use_node_id_as_ip": True,
        },
        "auth": {},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": NODE_CPUS}, "node_config": {}, "min_workers": 0, "max_workers": MOST_NODES},
        },
        "head_node_type": "ray.head.default",
        "head_node": {},
        "worker_nodes": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@pytest.fixture(scope="module")
def growing(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose only node has one CPU, with an autoscaler."""
    del base_image  # has to be there
    folder = tmp_path_factory.mktemp("growing")
    port = free_port(1, 2, 3)
    configuration, types = folder / "cluster.json", folder / "types.toml"
    configuration.write_text(json.dumps(cluster_configuration(f"127.0.0.1:{port}")))
    types.write_text(TYPES)
    with running_platform(
        variables=VARIABLES,
        driver="docker",
        host="0.0.0.0",
        cpus=1,
        ray_port=port,
        autoscaling_config=configuration,
        catalogue=types,
        warm_max=1,
        standby_containers=0,
    ) as running:
        yield running


@pytest.fixture
def jobs(growing: Platform, engine: docker.DockerClient, steps_image: str, tmp_path: Path) -> Iterator[Jobs]:
    with jobs_on(growing, engine, steps_image, (tmp_path / "models").as_uri()) as made:
        yield made


def status(platform: Platform) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(platform.cli("status", "--json").stdout)
    return found


def holds_nothing(platform: Platform) -> bool:
    """Tell whether all CPUs are free, those that are held for what waits among them."""
    found = status(platform)
    return bool(found["available"].get("CPU") == found["resources"]["CPU"])


def on(instance_type: str, count: int = 1) -> dict[str, object]:
    return {"InstanceType": instance_type, "InstanceCount": count, "VolumeSizeInGB": 1}


def has_only_its_head(platform: Platform) -> bool:
    return bool(status(platform)["nodes"] == 1)


def test_nodes_come_for_jobs_that_wait_and_go_afterwards(growing: Platform, jobs: Jobs) -> None:
    assert has_only_its_head(growing)
    names = [jobs.create(ResourceConfig=on("whole_node"), hyperparameters={"steps": 5}) for _ in range(3)]
    for name in names:
        assert jobs.finish(name, GROWN_S)["TrainingJobStatus"] == "Completed"
    told = [each["StatusMessage"] for each in jobs.describe(names[0])["SecondaryStatusTransitions"]]
    assert any("2 CPUs short of what is free" in message for message in told), told
    assert 2 <= status(growing)["nodes"] <= 1 + MOST_NODES
    eventually(lambda: holds_nothing(growing), "nothing is kept for jobs that are over", 60)
    eventually(lambda: has_only_its_head(growing), "the nodes that were added are taken away", GONE_S)


def test_a_gang_gets_the_nodes_that_it_lacks(growing: Platform, jobs: Jobs) -> None:
    name = jobs.create(ResourceConfig=on("whole_node", 2), hyperparameters={"steps": 5})
    assert jobs.finish(name, GROWN_S)["TrainingJobStatus"] == "Completed"
    assert status(growing)["nodes"] == 1 + MOST_NODES
    eventually(lambda: holds_nothing(growing), "nothing is kept for jobs that are over", 60)


def test_what_no_nodes_could_hold_is_refused_at_once(jobs: Jobs) -> None:
    with pytest.raises(ClientError, match="there is room for 2 in all: 2 nodes of 3 CPUs"):
        jobs.create(ResourceConfig=on("whole_node", 3))
