"""The line of what waits, through the reconciler: what a step costs, who is told what, and when to look again."""

from __future__ import annotations

import dataclasses
import gc
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from raymaker.actors.reports import JobReport, Outcome
from raymaker.actors.spec import Resources, TrainingSpec
from raymaker.platform import transitions
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.database import events, training
from raymaker.platform.database.engine import Database
from raymaker.platform.placing import LEAVING_S, STOOD_S, TOLD_AT_ONCE
from raymaker.platform.reconcile import Reconciler
from raymaker.platform.records import SecondaryStatus, TrainingJobRecord
from raymaker.platform.room import Queued
from raymaker.platform.settings import Settings
from support.evaluations import NoEvaluators, blind_watch
from support.pools import NoPools

NOW = 1_000.0
MANY = 300


class FakeFleet(NoEvaluators, NoPools):
    """Has so many CPUs, and for each job that it launches one less, until that is gone."""

    def __init__(self) -> None:
        self.cpus = 4.0
        self.launched: list[str] = []
        self.alive: set[tuple[str, int]] = set()
        self.looks = 0

    def supervisors(self) -> frozenset[tuple[str, int]]:
        return frozenset(self.alive)

    def free(self) -> Resources:
        self.looks += 1
        return Resources(self.cpus - len(self.alive), 64 * 2**30)

    def want(self, waiting: Sequence[Queued]) -> None:
        """This cluster does not grow."""

    def launch(self, spec: TrainingSpec) -> None:
        self.launched.append(spec.job_name)
        self.alive.add((spec.job_name, spec.attempt))

    def go(self, name: str) -> None:
        self.alive.discard((name, 1))


@dataclasses.dataclass
class World:
    database: Database
    settings: Settings
    fleet: FakeFleet = dataclasses.field(default_factory=FakeFleet)
    now: float = NOW
    statements: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        catalogue = load_catalogue(self.settings)
        self.reconciler = Reconciler(self.database, self.fleet, self.settings, catalogue, blind_watch())  # type: ignore[arg-type]

    def step(self, later_s: float = 0.0) -> list[str]:
        """One step; returns what it asked of the database, without the begin and end of transactions."""
        self.now += later_s
        self.statements.clear()
        self.reconciler.step(self.now)
        return [each.split()[0] for each in self.statements if not each.startswith("BEGIN")]

    def settle(self) -> None:
        """Step until nobody is told anything any more."""
        while "UPDATE" in [*self.step(STOOD_S), *self.step(STOOD_S)]:
            pass

    def add(self, *names: str, account: str = "0", instance_type: str = "local") -> None:
        request = {
            "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": "file:///tmp/out"},
            "ResourceConfig": {"InstanceType": instance_type, "InstanceCount": 1},
        }
        with self.database.transaction() as connection:
            for name in names:
                self.now += 0.001
                record = transitions.create_training_job(name, f"arn:{name}", account, request, self.now)
                assert training.insert_training_job(connection, record)

    def move(self, name: str, move: Any) -> None:
        with self.database.transaction() as connection:
            training.move_training_job(connection, name, move)

    def end(self, name: str) -> None:
        """Have a job end; its supervisor is there for a moment longer."""
        report = JobReport(name, 1, "Completed", "done", self.now, outcome=Outcome.COMPLETED)
        training.apply_report(self.database, report, self.now)

    def job(self, name: str) -> TrainingJobRecord:
        with self.database.reading() as connection:
            found = training.find_training_job(connection, name)
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    made = World(database, Settings(home=tmp_path))

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        made.statements.append(statement)

    event.listen(database._engine, "before_cursor_execute", hear)
    yield made
    database.dispose()


def names(count: int, prefix: str = "job") -> list[str]:
    return [f"{prefix}-{number:04}" for number in range(count)]


@pytest.mark.parametrize("count", [10, MANY])
def test_an_idle_step_costs_the_same_however_many_wait_and_writes_nothing(world: World, count: int) -> None:
    world.add(*names(count))
    world.settle()
    assert world.step(60) == ["SELECT"] * 5  # training and transform jobs, warm pools, evaluations, endpoints
    assert world.fleet.launched == names(4)


@pytest.mark.parametrize("count", [10, MANY])
def test_a_start_costs_the_same_however_many_wait(world: World, count: int) -> None:
    world.add(*names(count))
    world.settle()
    world.end("job-0000")
    world.fleet.go("job-0000")
    asked = world.step()
    assert world.fleet.launched == names(5)
    assert sorted(asked) == ["INSERT"] + ["SELECT"] * 6 + ["UPDATE"]


def test_many_are_told_a_few_at_a_time_and_each_once(world: World) -> None:
    world.add(*names(MANY))
    assert world.step().count("UPDATE") == 4 + TOLD_AT_ONCE
    assert world.reconciler.is_hurried, "the others want to be told"
    world.settle()
    assert not world.reconciler.is_hurried
    said = [world.job(name).message for name in names(MANY)[4:]]
    assert said == ["Waiting for an instance of local: 1 CPUs short of what is free"] + [
        "Waiting for an instance of local"
    ] * (MANY - 5)
    with world.database.reading() as connection:
        told = [event.kind for event in events.list_events(connection, "arn:job-0299", 10, None)[0]]
    assert told == ["Pending"]


def test_who_is_next_is_told_what_is_short_only_when_it_stays_so(world: World) -> None:
    world.add(*names(8))
    world.settle()
    world.end("job-0000")
    world.fleet.go("job-0000")
    world.step(0.1)
    world.step(0.1)
    assert world.job("job-0005").message == "Waiting for an instance of local"
    world.step(STOOD_S)
    assert world.job("job-0005").message == "Waiting for an instance of local: 1 CPUs short of what is free"


def test_after_an_end_it_is_looked_again_soon_until_the_room_is_there(world: World) -> None:
    """The process of a job that has ended holds its room for a moment."""
    world.add(*names(5))
    world.settle()
    assert not world.reconciler.is_hurried
    world.end("job-0000")
    world.step()
    assert world.fleet.launched == names(4)
    assert world.reconciler.is_hurried
    world.fleet.go("job-0000")
    world.step(0.1)
    assert world.fleet.launched == names(5)
    assert not world.reconciler.is_hurried, "nobody waits any more"


def test_nobody_looks_again_soon_for_long(world: World) -> None:
    world.add(*names(6))
    world.settle()
    world.end("job-0000")
    world.step()
    world.step(LEAVING_S)
    assert not world.reconciler.is_hurried


def test_nobody_asks_for_room_that_nobody_needs(world: World) -> None:
    world.add("only")
    world.step()
    looks = world.fleet.looks
    world.step()
    assert world.fleet.looks == looks


def test_accounts_take_turns_and_each_has_its_own_order(world: World) -> None:
    world.add(*names(6, "a"), account="1")
    world.add(*names(3, "b"), account="2")
    world.step()
    assert world.fleet.launched == ["a-0000", "b-0000", "a-0001", "b-0001"]
    for ended in ("a-0000", "a-0001"):
        world.end(ended)
        world.fleet.go(ended)
    world.step()
    assert world.fleet.launched[4:] == ["a-0002", "a-0003"]


def test_a_job_that_is_stopped_or_made_anew_is_no_longer_what_it_was(world: World) -> None:
    world.add(*names(4))
    world.add("large", instance_type="ml.m5.12xlarge")
    world.settle()
    world.move("large", lambda job: transitions.request_stop(job, world.now))
    with world.database.transaction() as connection:
        found = training.find_training_job(connection, "large")
        assert found is not None
        training.delete_training_job(connection, found)
    world.add("large")
    world.end("job-0000")
    world.fleet.go("job-0000")
    world.step()
    assert world.fleet.launched[-1] == "large"
    assert world.job("large").secondary is SecondaryStatus.STARTING


def test_a_job_that_cannot_be_put_in_line_is_complained_of_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.add("odd", instance_type="ml.gone.large")
    world.add("fine")
    world.settle()
    assert [record.getMessage() for record in caplog.records] == ["could not move odd"]
    assert world.fleet.launched == ["fine"]


def test_jobs_that_are_over_leave_nothing_in_memory(world: World) -> None:
    def run(prefix: str) -> int:
        world.add(*names(16, prefix))
        for _ in range(5):
            world.step(LEAVING_S)
            for name, _attempt in list(world.fleet.alive):
                world.end(name)
                world.fleet.go(name)
        assert len(world.fleet.launched) == 16
        world.fleet.launched.clear()
        world.statements.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    run("warm")
    tracemalloc.start()
    try:
        before = run("before")
        assert run("after") - before < 16 * 1500  # bytes; a record alone has some thousand
    finally:
        tracemalloc.stop()
