"""The reconciler's part for warm pools, against machines that only remember: kept, handed on, let go of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.reports import JobReport, Outcome
from raymaker.platform import transitions
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.database import training
from raymaker.platform.database.engine import Database
from raymaker.platform.pools.reconcile_pools import PoolReconciler
from raymaker.platform.pools.warm_pool import KeptFor, WarmPool
from raymaker.platform.records import TrainingJobRecord
from raymaker.platform.settings import Settings

NOW = 1_000.0
PERIOD_S = 60
ACCOUNT = "000000000000"
OTHER_ACCOUNT = "222222222222"


class FakeMachines:
    """Have a machine for each pool that they were once to keep, until it dies."""

    def __init__(self) -> None:
        self.kept: dict[str, KeptFor] = {}
        self.dead: set[str] = set()
        self.busy: set[str] = set()

    def keep_pools(self, pools: Mapping[str, KeptFor]) -> dict[str, bool]:
        self.kept = dict(pools)
        return {pool_id: pool_id not in self.busy for pool_id in pools.keys() - self.dead}


@dataclasses.dataclass
class World:
    database: Database
    settings: Settings
    machines: FakeMachines = dataclasses.field(default_factory=FakeMachines)
    count: int = 0

    def __post_init__(self) -> None:
        self.anew()

    def anew(self) -> None:
        """What knew of the pools dies and is made again."""
        catalogue = load_catalogue(self.settings)
        self.pools = PoolReconciler(self.database, self.machines, self.settings, catalogue)

    def add(self, name: str, account: str = ACCOUNT, role: str = "arn:role", **resources: Any) -> None:
        asked = {"InstanceType": "local", "InstanceCount": 1, "KeepAlivePeriodInSeconds": PERIOD_S, **resources}
        request = {"RoleArn": role, "ResourceConfig": asked}
        self.count += 1
        record = transitions.create_training_job(name, f"arn:{name}", account, request, NOW - 100 + self.count)
        with self.database.transaction() as connection:
            assert training.insert_training_job(connection, record)

    def ended(self, name: str, **how: Any) -> None:
        """A job that was started, and has ended."""
        self.add(name, **how)
        training.start_attempt(self.database, name, NOW)
        self.end(name)

    def end(self, name: str, outcome: Outcome = Outcome.COMPLETED) -> None:
        said = JobReport(name, 1, outcome.value, "said", NOW, outcome=outcome)
        training.apply_report(self.database, said, NOW)

    def step(self, now: float = NOW + 1) -> list[str]:
        """Step, and name the jobs that no longer wait."""
        jobs = training.unfinished_training_jobs(self.database)
        return [job.name for job in self.pools.step(jobs, now) if not job.is_waiting]

    def job(self, name: str) -> TrainingJobRecord:
        with self.database.reading() as connection:
            found = training.find_training_job(connection, name)
        assert found is not None
        return found

    def pool(self, name: str) -> WarmPool:
        pool = self.job(name).warm_pool
        assert pool is not None
        return pool


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield World(database, Settings(home=tmp_path))
    database.dispose()


def test_what_an_ended_job_left_goes_to_the_first_that_matches(world: World) -> None:
    world.ended("first")
    assert world.step() == []
    pool_id = world.pool("first").pool_id
    assert world.machines.kept == {pool_id: KeptFor("first", NOW + PERIOD_S)}
    assert world.pools.holdings()["what is kept of first"].held.cpus == 1
    world.add("elsewhere", role="arn:another")
    world.add("second")
    world.add("third")
    assert world.step() == ["second"]
    assert (world.pool("first").status, world.pool("first").reused_by) == ("Reused", "second")
    assert (world.pool("second").status, world.pool("second").pool_id) == ("InUse", pool_id)
    assert world.job("second").attempt == 1
    assert world.pools.holdings() == {}, "the job holds it"
    world.step()
    assert world.machines.kept == {pool_id: KeptFor("second")}
    world.end("second")
    assert world.step() == ["third"], "and on it goes"


def test_nothing_of_one_account_comes_to_another(world: World) -> None:
    world.ended("theirs", account=OTHER_ACCOUNT)
    world.add("ours")
    assert world.step() == []
    assert world.pool("theirs").status == "Available"
    world.add("theirs-too", account=OTHER_ACCOUNT)
    assert world.step() == ["theirs-too"]


def test_a_pool_whose_time_is_over_is_let_go_of(world: World) -> None:
    world.ended("first")
    world.step()
    world.add("second")
    assert world.step(NOW + PERIOD_S) == []
    assert (world.pool("first").status, world.machines.kept) == ("Terminated", {})


def test_a_machine_that_died_is_told_and_not_handed_on(world: World) -> None:
    world.ended("first")
    world.step()
    world.machines.dead.add(world.pool("first").pool_id)
    world.add("second")
    assert world.step() == []
    assert (world.pool("first").status, world.pool("first").reason) == ("Terminated", "Its machine is gone")


def test_a_machine_that_has_not_done_yet_is_waited_for(world: World) -> None:
    world.ended("first")
    world.machines.busy.add(world.pool("first").pool_id)
    world.add("second")
    assert world.step() == []
    assert world.pool("first").status == "Available"
    world.machines.busy.clear()
    assert world.step() == ["second"]


def test_a_new_control_plane_goes_by_the_records(world: World) -> None:
    world.ended("first")
    world.add("second")
    world.anew()
    assert world.step() == ["second"]


def test_what_a_gang_left_is_handed_on_though_no_machine_waits(world: World) -> None:
    world.ended("first", InstanceCount=2)
    world.machines.dead.add(world.pool("first").pool_id)
    world.step()
    assert world.pool("first").status == "Available"
    assert world.pools.holdings() == {}
    world.add("second", InstanceCount=2)
    assert world.step() == ["second"]


def test_two_pools_serve_two_jobs(world: World) -> None:
    world.ended("first")
    world.ended("second")
    for name in ("third", "fourth", "fifth"):
        world.add(name)
    assert world.step() == ["third", "fourth"]
    assert {world.pool("first").reused_by, world.pool("second").reused_by} == {"third", "fourth"}


def test_a_job_that_was_stopped_meanwhile_takes_nothing(world: World) -> None:
    world.ended("first")
    world.add("second")
    seen = training.unfinished_training_jobs(world.database)
    training.change_training_job(world.database, "second", lambda job: transitions.request_stop(job, NOW))
    assert world.pools.step(seen, NOW + 1)[0].is_waiting
    assert world.pool("first").status == "Available"
    assert world.job("second").warm_pool is None
