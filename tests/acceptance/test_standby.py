"""Jobs whose containers waited inside their start: as quick as they are, they are the jobs that a cold start makes."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from raymaker.actors.runtime.standby import LABEL_STANDBY
from support.faults import eventually, kill_process
from support.hosting import Hosting, hosting_on
from support.jobs import Jobs, fresh_name
from support.platform import Platform, running_platform


@pytest.fixture(scope="module")
def warm_platform(engine: object, base_image: str) -> Iterator[Platform]:
    """A platform whose machines keep a container of the image used last."""
    with running_platform(driver="docker", standby_containers=1, stop_grace_s=5) as running:
        yield running


@pytest.fixture
def warm_jobs(warm_platform: Platform, engine: docker.DockerClient, steps_image: str, tmp_path: Path) -> Iterator[Jobs]:
    client = warm_platform.client("sagemaker")
    yield Jobs(client, engine, steps_image, f"file://{tmp_path}/models")
    client.close()


def waiting(engine: docker.DockerClient, platform: Platform) -> list[Any]:
    found = engine.containers.list(filters={"label": [LABEL_STANDBY, f"raymaker.home={platform.settings.home_path}"]})
    return [container for container in found if "-standby-" in container.name]


def container_of(engine: docker.DockerClient, name: str) -> Any:
    return next(iter(engine.containers.list(filters={"name": f"training-{name}-"})), None)


def warm_up(platform: Platform, jobs: Jobs) -> None:
    """Run a job, after which a container of its image waits on each machine that waits."""
    assert jobs.finish(jobs.create(hyperparameters={"steps": 1}))["TrainingJobStatus"] == "Completed"

    def all_wait() -> bool:
        machines = json.loads(platform.cli("pools", "--json").stdout)["Machines"]
        count = sum(each["MachineStatus"] == "Waiting" for each in machines)
        return count == len(machines) == len(waiting_to_train(jobs.engine, platform))

    eventually(all_wait, "a container waits on each machine", 30)
    told = json.loads(platform.cli("pools", "--json").stdout)["WaitingContainers"]
    images = [jobs.engine.images.get(it["Image"]) for it in told]  # another session may have tagged the same one
    assert images == [jobs.engine.images.get(jobs.image)] * len(waiting(jobs.engine, platform)), told


def waiting_to_train(engine: docker.DockerClient, platform: Platform) -> list[Any]:
    """The containers that wait on machines: without a network, as jobs are here."""
    return [each for each in waiting(engine, platform) if each.attrs["HostConfig"]["NetworkMode"] == "none"]


def test_a_job_in_a_container_that_waited_is_like_any_other_and_leaves_nothing(
    warm_platform: Platform, warm_jobs: Jobs, engine: docker.DockerClient
) -> None:
    warm_up(warm_platform, warm_jobs)
    standbys = {each.id for each in waiting_to_train(engine, warm_platform)}
    begun = time.time()
    name = warm_jobs.create(hyperparameters={"steps": 30}, Environment={"MINE": "a 'word'"})
    container = eventually(lambda: container_of(engine, name), "its container has its name")
    assert container.id in standbys
    ended = warm_jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    assert ended["TrainingStartTime"].timestamp() >= begun, "what it did before does not count"
    assert [m["MetricName"] for m in ended["FinalMetricDataList"]] == ["loss"]
    model = Path(ended["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("file://"))
    assert model.stat().st_size > 0
    eventually(lambda: container_of(engine, name) is None, "its container is removed")
    eventually(lambda: waiting_to_train(engine, warm_platform), "another waits in its place", 30)


def test_a_machine_dies_and_another_takes_the_container_up_that_had_waited(
    warm_platform: Platform, warm_jobs: Jobs, engine: docker.DockerClient
) -> None:
    warm_up(warm_platform, warm_jobs)
    standbys = {each.id for each in waiting_to_train(engine, warm_platform)}
    name = warm_jobs.create(hyperparameters={"steps": 80})
    warm_jobs.until(name, "Training")
    standby = container_of(engine, name)
    assert standby.id in standbys
    kill_process(warm_platform.home, "ray::Machine")
    ended = warm_jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    assert [(m["MetricName"], m["Value"]) for m in ended["FinalMetricDataList"]] == [("loss", 20.5)]
    assert [t["Status"] for t in ended["SecondaryStatusTransitions"]].count("Training") == 1
    eventually(lambda: not engine.containers.list(all=True, filters={"id": standby.id}), "it is removed", 30)


def test_those_whose_machines_die_while_they_wait_are_gone_soon_and_one_waits_for_the_machine_that_is_made_then(
    warm_platform: Platform, warm_jobs: Jobs, engine: docker.DockerClient
) -> None:
    warm_up(warm_platform, warm_jobs)
    standbys = [each.id for each in waiting_to_train(engine, warm_platform)]
    kill_process(warm_platform.home, "ray::Machine")
    eventually(lambda: not engine.containers.list(all=True, filters={"id": standbys}), "they are reaped", 60)
    eventually(lambda: waiting_to_train(engine, warm_platform), "a container waits before a job came", 30)


def test_a_stopped_job_stops_a_container_that_had_waited(
    warm_platform: Platform, warm_jobs: Jobs, engine: docker.DockerClient
) -> None:
    warm_up(warm_platform, warm_jobs)
    name = warm_jobs.create(hyperparameters={"steps": 10_000})
    warm_jobs.until(name, "Training")
    warm_jobs.sagemaker.stop_training_job(TrainingJobName=name)
    assert warm_jobs.finish(name)["TrainingJobStatus"] == "Stopped"
    eventually(lambda: container_of(engine, name) is None, "its container is removed")


def test_a_job_has_the_image_that_its_tag_names_now_not_the_one_that_waits(
    warm_platform: Platform, warm_jobs: Jobs, engine: docker.DockerClient, steps_image: str
) -> None:
    tag = f"raymaker-test-moved-{fresh_name('image')}:1"
    asked = {"TrainingImage": tag, "TrainingInputMode": "File"}
    asked |= {"ContainerEntrypoint": ["sh", "-c"], "ContainerArguments": ['echo "this is ${WHICH:-the first}"']}
    try:
        assert engine.images.get(steps_image).tag(tag)
        for words in ("the first", "the second"):
            name = warm_jobs.create(AlgorithmSpecification=asked)
            assert warm_jobs.finish(name)["TrainingJobStatus"] == "Completed"
            assert f"this is {words}" in warm_platform.cli("logs", name).stdout
            eventually(lambda: waiting_to_train(engine, warm_platform), "a container waits", 30)
            dockerfile = io.BytesIO(f"FROM {steps_image}\nENV WHICH='the second'\n".encode())
            engine.images.build(fileobj=dockerfile, tag=tag, rm=True)
    finally:
        engine.images.remove(tag, force=True)


@pytest.fixture
def warm_hosting(warm_platform: Platform, engine: docker.DockerClient, steps_image: str) -> Iterator[Hosting]:
    with hosting_on(warm_platform, engine, steps_image) as hosting:
        yield hosting


def serve_once(platform: Platform, hosting: Hosting, config: str) -> None:
    """Have an endpoint made and taken away, after which a container like its own waits."""
    name = hosting.create(config)
    assert hosting.settle(name)["EndpointStatus"] == "InService"
    take_away(hosting, name)
    eventually(lambda: waiting_to_score(hosting.engine, platform), "one like it waits", 30)


def take_away(hosting: Hosting, name: str) -> None:
    hosting.sagemaker.delete_endpoint(EndpointName=name)
    hosting.made.remove(name)
    eventually(lambda: not hosting.containers(name), "nothing is left of it")


def waiting_to_score(engine: docker.DockerClient, platform: Platform) -> list[Any]:
    """The containers that wait and have a network, as those of jobs have none here."""
    return [each for each in waiting(engine, platform) if each.attrs["HostConfig"]["NetworkMode"] != "none"]


def test_an_endpoint_is_served_and_served_again_after_a_death_by_containers_that_waited(
    warm_platform: Platform, warm_hosting: Hosting, engine: docker.DockerClient
) -> None:
    config = warm_hosting.config({"SAY": "hello"})
    serve_once(warm_platform, warm_hosting, config)
    (standby,) = waiting_to_score(engine, warm_platform)
    name = warm_hosting.create(config)
    assert warm_hosting.settle(name)["EndpointStatus"] == "InService"
    (container,) = warm_hosting.containers(name)
    assert container.id == standby.id
    assert warm_hosting.invoke(name, b"x")["Body"] == b"hello=none got=x"
    (second,) = eventually(lambda: waiting_to_score(engine, warm_platform), "another waits in its place", 30)
    container.kill()
    eventually(lambda: [c.id for c in warm_hosting.containers(name)] == [second.id], "it is in its place")
    assert warm_hosting.invoke(name, b"x")["Body"] == b"hello=none got=x"
    take_away(warm_hosting, name)


def test_an_endpoint_starts_though_the_janitor_died_and_its_containers_with_it(
    warm_platform: Platform, warm_hosting: Hosting, engine: docker.DockerClient
) -> None:
    config = warm_hosting.config({"SAY": "hello"})
    serve_once(warm_platform, warm_hosting, config)
    ids = [each.id for each in waiting_to_score(engine, warm_platform)]
    kill_process(warm_platform.home, "ray::Janitor")
    name = warm_hosting.create(config)
    assert warm_hosting.settle(name)["EndpointStatus"] == "InService"
    assert warm_hosting.invoke(name, b"x")["Body"] == b"hello=none got=x"
    eventually(lambda: not engine.containers.list(all=True, filters={"id": ids}), "they are reaped", 60)
