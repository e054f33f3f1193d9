"""The platform is hurt in every phase of a job; whatever was acknowledged still reaches exactly one good end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from support.faults import eventually, kill_everything, kill_process
from support.jobs import Jobs
from support.platform import Platform, running_platform
from support.s3 import ObjectStore

CONTROL = "ray::Control"
SUPERVISOR = "ray::Machine"
FRONTEND = "frontend"


@pytest.fixture(scope="module")
def hurt_platform(engine: object, base_image: str, s3: ObjectStore) -> Iterator[Platform]:
    """A platform of this module's own, so that what is done to it hurts no other test."""
    with running_platform(
        driver="docker",
        stop_grace_s=5,
        s3_endpoint_url=s3.endpoint_url,
        s3_access_key_id=s3.access_key,
        s3_secret_access_key=s3.secret_key,
    ) as running:
        yield running


@pytest.fixture
def hurt_jobs(
    hurt_platform: Platform, engine: docker.DockerClient, steps_image: str, s3: ObjectStore
) -> Iterator[Jobs]:
    client = hurt_platform.client("sagemaker")
    yield Jobs(client, engine, steps_image, f"s3://{s3.bucket()}/models")
    client.close()


def patiently(jobs: Jobs, name: str) -> dict[str, Any] | None:
    """Describe a job; None while nobody answers."""
    try:
        return jobs.describe(name)
    except Exception:
        return None


def assert_one_good_end(jobs: Jobs, name: str, since: float) -> dict[str, Any]:
    """The job completes, its one container ran once and is gone, and its model is there."""
    ended = eventually(
        lambda: found if (found := patiently(jobs, name)) and found["TrainingJobStatus"] != "InProgress" else None,
        f"{name} ends",
        150,
    )
    assert ended["TrainingJobStatus"] == "Completed", ended
    assert ended["ModelArtifacts"]["S3ModelArtifacts"].endswith(f"{name}/output/model.tar.gz")
    ends = [t for t in ended["SecondaryStatusTransitions"] if t["Status"] == "Completed"]
    assert len(ends) == 1
    eventually(lambda: not jobs.containers(name), "no container is left", 30)
    assert jobs.start_count(name, since, time.time()) == 1
    return ended


def test_the_control_actor_dies_right_after_the_answer(hurt_platform: Platform, hurt_jobs: Jobs) -> None:
    since = time.time()
    name = hurt_jobs.create(hyperparameters={"steps": 5})
    kill_process(hurt_platform.home, CONTROL)
    assert_one_good_end(hurt_jobs, name, since)


def test_the_control_actor_and_the_frontend_die_while_the_job_trains(hurt_platform: Platform, hurt_jobs: Jobs) -> None:
    since = time.time()
    name = hurt_jobs.create(hyperparameters={"steps": 80})
    hurt_jobs.until(name, "Training")
    kill_process(hurt_platform.home, CONTROL)
    kill_process(hurt_platform.home, FRONTEND)
    assert_one_good_end(hurt_jobs, name, since)


def test_the_instance_dies_while_the_job_trains_and_takes_its_container_up_again(
    hurt_platform: Platform, hurt_jobs: Jobs
) -> None:
    since = time.time()
    name = hurt_jobs.create(hyperparameters={"steps": 80})
    hurt_jobs.until(name, "Training")
    kill_process(hurt_platform.home, SUPERVISOR)
    ended = assert_one_good_end(hurt_jobs, name, since)
    assert [(m["MetricName"], m["Value"]) for m in ended["FinalMetricDataList"]] == [("loss", 20.5)]


def test_the_instance_dies_again_and_again(hurt_platform: Platform, hurt_jobs: Jobs) -> None:
    since = time.time()
    name = hurt_jobs.create(hyperparameters={"steps": 100})
    for _ in range(3):
        eventually(lambda: kill_if_there(hurt_platform, SUPERVISOR), "a supervisor is there to be killed")
        time.sleep(1.0)
    assert_one_good_end(hurt_jobs, name, since)


def test_everything_dies_while_jobs_train_wait_and_stop_and_comes_back(
    hurt_platform: Platform, hurt_jobs: Jobs
) -> None:
    since = time.time()
    training = hurt_jobs.create(hyperparameters={"steps": 150})
    stopping = hurt_jobs.create(hyperparameters={"steps": 10_000, "deaf": 1})
    hurt_jobs.until(training, "Training")
    hurt_jobs.until(stopping, "Training")
    hurt_jobs.sagemaker.stop_training_job(TrainingJobName=stopping)
    waiting = hurt_jobs.create(hyperparameters={"steps": 1})
    kill_everything(hurt_platform.home)
    assert hurt_platform.cli("up").returncode == 0
    assert_one_good_end(hurt_jobs, training, since)
    assert_one_good_end(hurt_jobs, waiting, since)
    assert hurt_jobs.finish(stopping)["TrainingJobStatus"] == "Stopped"
    eventually(lambda: not hurt_jobs.containers(stopping), "no container of the stopped job is left", 30)


def test_a_container_that_was_taken_away_costs_one_attempt(hurt_jobs: Jobs) -> None:
    name = hurt_jobs.create(hyperparameters={"steps": 50})
    hurt_jobs.until(name, "Training")
    eventually(lambda: hurt_jobs.containers(name), "its container runs")[0].remove(force=True)
    ended = hurt_jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    assert "Restarting" in [t["Status"] for t in ended["SecondaryStatusTransitions"]]


def test_down_and_up_again_runs_an_interrupted_job_anew(hurt_platform: Platform, hurt_jobs: Jobs) -> None:
    name = hurt_jobs.create(hyperparameters={"steps": 50})
    hurt_jobs.until(name, "Training")
    assert hurt_platform.cli("down").returncode == 0
    assert hurt_jobs.containers(name) == []
    assert hurt_platform.cli("up").returncode == 0
    assert hurt_jobs.finish(name)["TrainingJobStatus"] == "Completed"


def kill_if_there(platform: Platform, title: str) -> bool:
    try:
        kill_process(platform.home, title)
    except AssertionError:
        return False
    return True
