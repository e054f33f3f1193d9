"""Gangs that wait for a job: it runs on them, and survives there what it survives on others."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from raymaker.platform.cluster import head
from raymaker.platform.cluster.reporter import NAMESPACE
from support.faults import command_line, eventually, kill_process, platform_processes
from support.gangs import Gangs, Lives, expected_weights
from support.platform import Platform, running_platform
from support.s3 import ObjectStore

WAITED = "Starting training on 2 instances that waited"
SUPERVISOR, CONTROL, MACHINE = "ray::WaitingGangActor", "ray::Control", "ray::RayTrainWorker"
CPUS = 4
ASK = """
import sys, time
import ray
from ray.util import list_named_actors
ray.init(address=sys.argv[1], namespace=sys.argv[2], logging_level="ERROR", log_to_driver=False)
while not (gangs := [name for name in list_named_actors() if name.startswith("gang/")]):
    time.sleep(0.2)
print(ray.get(ray.get_actor(gangs[0]).gathered.remote(), timeout=120))
"""


@pytest.fixture(scope="module")
def gang_platform(s3: ObjectStore, base_image: str) -> Iterator[Platform]:
    """A platform of one node on which a gang waits."""
    del base_image  # has to be there
    store = {"endpoint_url": s3.endpoint_url, "access_key_id": s3.access_key, "secret_access_key": s3.secret_key}
    with running_platform(
        driver="docker",
        cpus=CPUS,
        warm_gangs=1,
        standby_containers=1,
        stop_grace_s=5,
        reap_after_s=5,
        **{f"s3_{name}": value for name, value in store.items()},
    ) as running:
        yield running


def until_a_gang_waits(platform: Platform) -> None:
    """Wait until there is a gang all of whose machines wait. Its supervisor knows."""
    address = f"127.0.0.1:{platform.settings.ray_port}"
    environment = head.ray_environment(platform.settings)
    done = platform.run([sys.executable, "-c", ASK, address, NAMESPACE], environment=environment)
    assert done.stdout.strip() == "True", done.stdout + done.stderr


def processes(gangs: Gangs, called: str) -> set[int]:
    """The platform's processes of a name."""
    return {pid for pid in platform_processes(gangs.platform.home) if called in command_line(pid)}


def free_cpus(gangs: Gangs) -> float:
    """What Ray could give of the platform's CPUs."""
    return float(json.loads(gangs.platform.cli("status", "--json").stdout)["available"].get("CPU", 0.0))


def until_it_goes_on(gangs: Gangs, name: str, starts: int) -> None:
    """Wait until a job trains in its start of that number, the last that it had."""
    gangs.until_resumed(name, starts)
    gangs.until_said(name, f"rank=1 step={gangs.last_step(name) + 5}")
    assert gangs.start_count(name) == starts, gangs.events(name)


@pytest.mark.long
def test_a_job_finds_a_gang_that_waits_and_outlives_it(gangs: Gangs, lives: Lives) -> None:
    until_a_gang_waits(gangs.platform)
    machines, supervisors = processes(gangs, MACHINE), processes(gangs, SUPERVISOR)
    assert (len(machines), len(supervisors)) == (2, 1)
    name = gangs.create(
        2,
        checkpoints=True,
        hyperparameters={"steps": 100_000, "pace_s": 0.2},
        resources={"PlacementStrategy": "Pack"},
        RetryStrategy={"MaximumRetryAttempts": 5},
    )
    until_it_goes_on(gangs, name, 1)
    assert any(WAITED in event for event in gangs.events(name)), gangs.events(name)
    kill_process(gangs.platform.home, CONTROL)
    until_it_goes_on(gangs, name, 1)
    os.kill(min(machines), signal.SIGKILL)
    until_it_goes_on(gangs, name, 2)
    os.kill(min(supervisors), signal.SIGKILL)
    until_it_goes_on(gangs, name, 3)
    gangs.jobs.sagemaker.stop_training_job(TrainingJobName=name)
    assert gangs.jobs.finish(name)["TrainingJobStatus"] == "Stopped"
    made, weights = gangs.model(name)
    np.testing.assert_allclose(weights, expected_weights(made), rtol=1e-9)
    gangs.assert_nothing_left(name)
    lives.assert_never_two(name)
    eventually(lambda: free_cpus(gangs) == CPUS, "what the gangs had is given back", 30)
