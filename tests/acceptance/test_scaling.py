"""Endpoints that are scaled by their load and sleep while nobody asks, on a whole platform, always over HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from botocore.exceptions import ClientError

from raymaker.platform.client.connection import Connection
from raymaker.platform.database import hosting as records
from raymaker.platform.database.engine import Database
from raymaker.platform.records import SleepStage
from support.faults import command_line, eventually, kill_process, platform_processes
from support.jobs import ROLE, Jobs, fresh_name
from support.platform import Platform, running_platform

MANY = 300
REQUEST_COUNT, PAUSE_S = 25, 0.3
"""Requests that come during a wake, which takes several seconds."""


@dataclasses.dataclass
class Scaled:
    """One endpoint of one variant, and what a test does with it."""

    platform: Platform
    engine: docker.DockerClient
    sagemaker: Any
    runtime: Any
    name: str

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=self.name)
        return found

    def variant(self) -> dict[str, Any]:
        found: dict[str, Any] = self.describe()["ProductionVariants"][0]
        return found

    def invoke(self, body: bytes = b"x") -> bytes:
        answer: bytes = self.runtime.invoke_endpoint(EndpointName=self.name, Body=body)["Body"].read()
        return answer

    def outcome(self) -> str:
        """The answer, or the error's message."""
        try:
            return self.invoke().decode()
        except ClientError as error:
            return str(error)

    def sleep_stage(self) -> SleepStage | None:
        with records_of(self.platform) as database, database.reading() as connection:
            found = records.find_endpoint(connection, self.name)
        assert found is not None
        return found.sleep

    def add_sleepers(self, count: int) -> list[str]:
        """Put records of as many endpoints like this one, which sleeps, beside its own; returns their names."""
        names = [f"{self.name}-{number}" for number in range(count)]
        with records_of(self.platform) as database, database.transaction() as connection:
            found = records.find_endpoint(connection, self.name)
            assert found is not None
            for name in names:
                arn = found.arn.replace(self.name, name)
                assert records.insert_endpoint(connection, dataclasses.replace(found, name=name, arn=arn))
        return names

    def listed(self) -> list[str]:
        pages = self.sagemaker.get_paginator("list_endpoints").paginate(NameContains=f"{self.name}-")
        return [it["EndpointName"] for page in pages for it in page["Endpoints"]]

    def replicas(self) -> list[int]:
        """The processes of Serve that belong to endpoints called like this one."""
        found = platform_processes(self.platform.home)
        return [pid for pid in found if f"ServeReplica:endpoint-{self.name}" in command_line(pid)]

    def containers(self) -> list[Any]:
        return [c for c in self.engine.containers.list(ignore_removed=True) if f"-scoring-{self.name}-" in c.name]


@contextlib.contextmanager
def records_of(platform: Platform) -> Iterator[Database]:
    database = Database(platform.settings.resolved_database_url)
    yield database
    database.dispose()


@contextlib.contextmanager
def serving(platform: Platform, engine: docker.DockerClient, image: str, **variant: Any) -> Iterator[Scaled]:
    """An endpoint in service, which is gone after the block."""
    name = fresh_name("scaled")
    with contextlib.ExitStack() as stack:
        extended = stack.enter_context(contextlib.closing(Connection(platform.url)))
        sagemaker = extended.client("sagemaker")
        runtime = stack.enter_context(contextlib.closing(platform.client("sagemaker-runtime")))
        container = {"Image": image, "Environment": {"SAY": "awake"}}
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        chosen = {"VariantName": "main", "ModelName": name, **variant}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[chosen])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        made = Scaled(platform, engine, sagemaker, runtime, name)
        try:
            eventually(lambda: made.describe()["EndpointStatus"] == "InService", f"{name} is in service", 120)
            yield made
        finally:
            sagemaker.delete_endpoint(EndpointName=name)
            eventually(lambda: not made.containers(), f"no container of {name} is left", 60)


@pytest.fixture(scope="module")
def night(engine: docker.DockerClient, base_image: str) -> Iterator[Platform]:
    """A platform on which idle endpoints go to sleep at once."""
    with running_platform(driver="docker", resting_endpoints=0, stop_grace_s=5) as running:
        yield running


def test_an_idle_endpoint_rests_at_first_and_makes_way_for_whoever_waits_for_its_room(
    engine: docker.DockerClient, steps_image: str, tmp_path: Path
) -> None:
    """Its process stays, without its container; so do its answers, also of those who ask while it comes to rest."""
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 9, "IdleTimeInSeconds": 1}
    with (
        running_platform(driver="docker", cpus=2) as platform,
        serving(platform, engine, steps_image, ServerlessConfig=serverless) as endpoint,
        contextlib.closing(platform.client("sagemaker")) as sagemaker,
    ):
        eventually(lambda: not endpoint.containers(), "its container rests")
        (replica,) = endpoint.replicas()
        with ThreadPoolExecutor(9) as clients:
            answers = list(clients.map(lambda _: endpoint.invoke(), range(9)))
        assert len({answer.split()[0] for answer in answers}) == 1, "one container answers them all"
        for pause_s in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5):
            time.sleep(pause_s)
            assert endpoint.invoke().startswith(b"awake=")
        assert (endpoint.sleep_stage(), endpoint.replicas()) == (None, [replica])
        assert "The scoring container rests" in platform.cli("events", endpoint.name).stdout
        eventually(lambda: not endpoint.containers(), "its container rests")
        jobs = Jobs(sagemaker, engine, steps_image, f"file://{tmp_path}/models")
        every_cpu = {"InstanceType": "ml.c5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        assert jobs.finish(jobs.create(ResourceConfig=every_cpu))["TrainingJobStatus"] == "Completed"
        assert endpoint.replicas() == []
        assert endpoint.invoke().startswith(b"awake=")


def test_an_idle_endpoint_sleeps_and_holds_whoever_asks_until_it_has_woken(
    night: Platform, engine: docker.DockerClient, steps_image: str
) -> None:
    """Its control actor dies while it sleeps; nothing of it runs until it is asked; all who ask are answered."""
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 3, "IdleTimeInSeconds": 2}
    with serving(night, engine, steps_image, ServerlessConfig=serverless) as endpoint:
        assert endpoint.invoke().startswith(b"awake=")
        eventually(lambda: endpoint.sleep_stage() is SleepStage.ASLEEP, lambda: f"{endpoint.describe()} sleeps", 120)
        assert (endpoint.containers(), endpoint.describe()["EndpointStatus"]) == ([], "InService")
        assert endpoint.variant()["CurrentInstanceCount"] == 0
        kill_process(night.home, "ray::Control")
        with ThreadPoolExecutor(3) as clients:
            answers = list(clients.map(lambda _: endpoint.invoke(), range(3)))
        assert all(answer.startswith(b"awake=") for answer in answers), answers
        assert len(endpoint.containers()) == 1, "three requests woke it once"
        eventually(lambda: endpoint.sleep_stage() is None, "it is awake", 30)
        assert endpoint.variant()["CurrentServerlessConfig"] == serverless


def test_whoever_asks_while_an_endpoint_wakes_is_answered_with_its_answer_or_with_why_it_did_not_wake(
    night: Platform, engine: docker.DockerClient, steps_image: str
) -> None:
    """Requests come all the time: before it has a route, while it has no replica yet, and when it has failed."""
    repository = f"raymaker-test-wake-{fresh_name('image')}"
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 50, "IdleTimeInSeconds": 2}
    image = engine.images.get(steps_image)
    assert image.tag(repository, "1")
    try:
        with serving(night, engine, f"{repository}:1", ServerlessConfig=serverless) as endpoint:

            def ask_all_the_time() -> list[str]:
                eventually(lambda: endpoint.sleep_stage() is SleepStage.ASLEEP, lambda: f"{endpoint.describe()}", 120)
                with ThreadPoolExecutor(REQUEST_COUNT) as clients:
                    asked = []
                    for _ in range(REQUEST_COUNT):
                        asked.append(clients.submit(endpoint.outcome))
                        time.sleep(PAUSE_S)
                    return [each.result() for each in asked]

            engine.images.remove(f"{repository}:1")
            said = ask_all_the_time()
            assert all("It did not wake" in each and f"no image {repository}:1" in each for each in said), said
            assert endpoint.describe()["EndpointStatus"] == "InService"
            assert image.tag(repository, "1")
            said = ask_all_the_time()
            assert all(each.startswith("awake=") for each in said), said
    finally:
        engine.images.remove(f"{repository}:1")


def test_many_endpoints_that_sleep_hold_no_process_and_each_can_be_woken(
    night: Platform, engine: docker.DockerClient, steps_image: str
) -> None:
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 1, "IdleTimeInSeconds": 2}
    with serving(night, engine, steps_image, ServerlessConfig=serverless) as endpoint:
        eventually(lambda: endpoint.sleep_stage() is SleepStage.ASLEEP, lambda: f"{endpoint.describe()} sleeps", 120)
        names = endpoint.add_sleepers(MANY)
        assert sorted(endpoint.listed()) == sorted(names)
        assert (endpoint.replicas(), endpoint.containers()) == ([], [])
        answer = endpoint.runtime.invoke_endpoint(EndpointName=names[MANY // 2], Body=b"x")
        assert answer["Body"].read().startswith(b"awake=")
        assert len(endpoint.replicas()) == 1
        for name in names:
            endpoint.sagemaker.delete_endpoint(EndpointName=name)
        eventually(lambda: endpoint.listed() == [], "all are gone", 120)
