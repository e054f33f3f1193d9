"""Warm pools on the whole platform: who gets what is kept, what is in it, and that it ends by each way it can."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from raymaker.platform import transitions
from raymaker.platform.database import training
from raymaker.platform.database.engine import Database
from support.faults import eventually, kill_process
from support.jobs import Jobs, fresh_name
from support.platform import Platform, running_platform

OTHER_ACCOUNT = "222222222222"
CACHE = "/opt/ml/sagemaker/warmpoolcache"
LOOK = r"""
cache=$SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY
echo "cache=[$(cat $cache/* 2>/dev/null | tr '\n' ' ')]"
echo "left=[$(ls -A /opt/ml/model /opt/ml/output/data /tmp | grep left)]"
[ -n "$cache" ] && echo $TRAINING_JOB_NAME-$RANK >> $cache/who
touch /tmp/left /opt/ml/model/left /opt/ml/output/data/left
"""
"""Says what it finds, and leaves something wherever it may."""
WHOLE = "whole = { cpus = 2, memory_gib = 0.25 }\n"
"""An instance type that takes all of the node."""


@pytest.fixture(scope="module")
def pool_platform(engine: object, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of two CPUs: what is kept is missed by others."""
    catalogue = tmp_path_factory.mktemp("catalogue") / "types.toml"
    catalogue.write_text(WHOLE)
    with running_platform(driver="docker", cpus=2, catalogue=catalogue, stop_grace_s=5) as running:
        yield running


class Pools:
    """Jobs that look and leave something, with a keep-alive period or without."""

    def __init__(self, platform: Platform, jobs: Jobs) -> None:
        self.platform, self.jobs = platform, jobs

    def create(self, keep_s: int = 600, kind: str = "local", count: int = 1, **changes: Any) -> str:
        look = ["sh", "-c", 'eval "$LOOK"']
        algorithm = {"TrainingImage": self.jobs.image, "TrainingInputMode": "File", "ContainerEntrypoint": look}
        resources = {"InstanceType": kind, "InstanceCount": count, "VolumeSizeInGB": 1}
        kept = {"KeepAlivePeriodInSeconds": keep_s} if keep_s else {}
        changes |= {"AlgorithmSpecification": algorithm, "ResourceConfig": resources | kept}
        return self.jobs.create(Environment={"LOOK": LOOK}, **changes)

    def run(self, **how: Any) -> str:
        name = self.create(**how)
        self.completes(name)
        return name

    def completes(self, name: str) -> None:
        assert (ended := self.jobs.finish(name))["TrainingJobStatus"] == "Completed", ended

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.jobs.describe(name).get("WarmPoolStatus", {})
        return found

    def until(self, name: str, status: str) -> dict[str, Any]:
        return eventually(
            lambda: found if (found := self.status(name)).get("Status") == status else None,
            lambda: f"the pool of {name} is {status}: {self.status(name)}",
        )

    def said(self, name: str) -> list[str]:
        return self.platform.cli("logs", name).stdout.splitlines()

    def give_back(self, name: str) -> None:
        period = {"KeepAlivePeriodInSeconds": 0}
        self.jobs.sagemaker.update_training_job(TrainingJobName=name, ResourceConfig=period)

    def machines(self, status: str) -> dict[str, dict[str, Any]]:
        """The machines of a status, by the job that they run or are kept after; none while nobody says."""
        asked = self.platform.cli("pools", "--json")
        found = json.loads(asked.stdout)["Machines"] if asked.returncode == 0 else []
        return {it.get("TrainingJobName", ""): it for it in found if it["MachineStatus"] == status}

    def folders(self) -> list[Path]:
        root = self.platform.home / "warm-pools"
        return list(root.iterdir()) if root.exists() else []

    def insert_for_other_account(self, like: str) -> str:
        """The same request once more, of an account that the frontend does not know."""
        example = self.jobs.describe(like)
        fields = ("AlgorithmSpecification", "Environment", "OutputDataConfig", "ResourceConfig", "RoleArn")
        request, name = {field: example[field] for field in fields}, fresh_name("other")
        database = Database(self.platform.settings.resolved_database_url)
        record = transitions.create_training_job(name, f"arn:{name}", OTHER_ACCOUNT, request, time.time())
        with database.transaction() as connection:
            assert training.insert_training_job(connection, record)
        database.dispose()
        return name


@pytest.fixture
def pools(pool_platform: Platform, engine: docker.DockerClient, steps_image: str, tmp_path: Path) -> Iterator[Pools]:
    client = pool_platform.client("sagemaker")
    made = Pools(pool_platform, Jobs(client, engine, steps_image, f"file://{tmp_path}/models"))
    yield made
    for name in made.jobs.made:
        if made.status(name).get("Status") == "Available":
            made.give_back(name)
    eventually(lambda: not made.folders(), "nothing of a pool that has ended is left", 30)
    client.close()


def test_what_is_kept_goes_to_a_job_that_matches_and_to_nobody_else(pools: Pools) -> None:
    first = pools.run()
    assert pools.said(first) == ["cache=[]", "left=[]"]
    assert pools.until(first, "Available")["ResourceRetainedBillableTimeInSeconds"] < 600
    kept = eventually(lambda: pools.machines("Kept").get(first), "the machine is shown")
    assert kept["KeptUntil"]
    assert "Available, kept until" in pools.platform.cli("describe", first).stdout

    strangers = [pools.run(keep_s=0, RoleArn="arn:aws:iam::000000000000:role/another")]
    strangers += [pools.insert_for_other_account(first)]
    pools.completes(strangers[1])
    assert all(pools.said(name) == ["cache=[]", "left=[]"] for name in strangers)
    assert pools.status(first)["Status"] == "Available"
    pools.platform.cli("update", strangers[1], "--keep-alive", "0")

    second = pools.run()
    assert pools.said(second) == [f"cache=[{first}- ]", "left=[]"], "its cache, and nothing else"
    reused = pools.status(first)
    assert (reused["Status"], reused["ReusedByJob"]) == ("Reused", second)
    again = eventually(lambda: pools.machines("Kept").get(second), "the machine is kept on")
    assert again["MachineName"] == kept["MachineName"]
    found = pools.jobs.sagemaker.list_training_jobs(WarmPoolStatusEquals="Available")["TrainingJobSummaries"]
    assert [(it["TrainingJobName"], it["WarmPoolStatus"]["Status"]) for it in found] == [(second, "Available")]

    last = pools.run(keep_s=0)
    assert pools.said(last) == [f"cache=[{first}- {second}- ]", "left=[]"]
    assert pools.status(last)["Status"] == "Terminated", "it asked for no more"


def test_room_is_kept_until_it_is_given_back_or_its_time_is_over(pools: Pools) -> None:
    kept = pools.run()
    large = pools.create(keep_s=0, kind="whole")
    waiting = pools.jobs.until(large, "Pending")["SecondaryStatusTransitions"][-1]["StatusMessage"]
    assert waiting.endswith("short of what is free; 1 machine(s) are kept in warm pools")
    pools.give_back(kept)
    pools.completes(large)
    assert pools.said(large) == ["cache=[]", "left=[]"], "without a pool there is no cache"
    given = pools.status(kept)
    assert given["Status"] == "Terminated"
    eventually(lambda: not pools.folders(), "its cache is wiped", 30)
    brief = pools.run(keep_s=1)
    assert pools.until(brief, "Terminated")["ResourceRetainedBillableTimeInSeconds"] == 1


def test_a_pool_outlives_the_control_plane_but_not_its_machine(pools: Pools) -> None:
    first = pools.run()
    pools.until(first, "Available")
    kill_process(pools.platform.home, "ray::Control")
    kept = eventually(lambda: pools.machines("Kept").get(first), "the machine is found again")
    second = pools.run()
    assert pools.said(second) == [f"cache=[{first}- ]", "left=[]"]
    assert eventually(lambda: pools.machines("Kept").get(second), "kept on")["MachineName"] == kept["MachineName"]
    kill_process(pools.platform.home, "ray::Machine")
    pools.until(second, "Terminated")
    assert "Its machine is gone" in pools.platform.cli("describe", second).stdout
    eventually(lambda: not pools.folders(), "what it left is found and wiped", 30)


def test_each_machine_of_a_gang_finds_its_cache_again(pools: Pools) -> None:
    first = pools.run(count=2)
    pools.until(first, "Available")
    second = pools.run(count=2)
    assert pools.status(first)["ReusedByJob"] == second
    said = "".join(pools.said(second))
    assert f"cache=[{first}-0 ]" in said
    assert f"cache=[{first}-1 ]" in said
