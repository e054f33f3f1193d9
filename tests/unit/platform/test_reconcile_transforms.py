"""Transform jobs in the reconciler, against a fleet that only remembers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from raymaker.actors.reports import Outcome
from raymaker.actors.spec import Resources, TrainingSpec
from raymaker.platform import transitions
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.database import training, transforms
from raymaker.platform.database.engine import Database
from raymaker.platform.reconcile import Reconciler
from raymaker.platform.room import Queued
from raymaker.platform.settings import Settings
from raymaker.platform.transforming import transform_jobs
from raymaker.platform.transforming.transform_jobs import TransformJobRecord, TransformModel
from raymaker.serving.transform.reports import Phase, TransformReport
from raymaker.serving.transform.spec import TransformSpec
from support.evaluations import NoEvaluators, blind_watch
from support.pools import NoPools

NOW = 1_000.0


class FakeFleet(NoEvaluators, NoPools):
    """Remembers what it was asked to do with jobs; it has no endpoints."""

    def __init__(self) -> None:
        self.cpus = 4.0
        self.launched: list[str] = []
        self.machines: set[tuple[str, int, int]] = set()
        self.stopped: list[tuple[str, int, int]] = []

    def supervisors(self) -> frozenset[tuple[str, int]]:
        return frozenset()

    def free(self) -> Resources:
        return Resources(self.cpus, 64 * 2**30)

    def want(self, waiting: Sequence[Queued]) -> None:
        """This cluster does not grow."""

    def launch(self, spec: TrainingSpec) -> None:
        self.launched.append(spec.job_name)

    def transform_machines(self) -> frozenset[tuple[str, int, int]]:
        return frozenset(self.machines)

    def launch_transform(self, spec: TransformSpec) -> None:
        self.launched.append(f"{spec.job_name}/{spec.attempt}/{spec.machine_index}")
        self.machines.add((spec.job_name, spec.attempt, spec.machine_index))

    def stop_transform(self, key: tuple[str, int, int]) -> None:
        self.stopped.append(key)

    def lose(self, *key: str | int) -> None:
        self.machines.remove(key)  # type: ignore[arg-type]


@dataclasses.dataclass
class World:
    database: Database
    fleet: FakeFleet
    settings: Settings

    def step(self) -> None:
        catalogue = load_catalogue(self.settings)
        Reconciler(self.database, self.fleet, self.settings, catalogue, blind_watch()).step(NOW)  # type: ignore[arg-type]

    def add(self, name: str, count: int = 1, instance_type: str = "local", created_at: float = NOW) -> None:
        request = {
            "ModelName": "m",
            "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/"}}},
            "TransformOutput": {"S3OutputPath": "s3://b/out"},
            "TransformResources": {"InstanceType": instance_type, "InstanceCount": count},
        }
        model = TransformModel("image")
        record = transform_jobs.create_transform_job(name, f"arn:{name}", "0", request, model=model, now=created_at)
        with self.database.transaction() as connection:
            assert transforms.insert_transform_job(connection, record)

    def add_training(self, name: str, created_at: float) -> None:
        request = {
            "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": "file:///tmp/out"},
            "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1},
        }
        record = transitions.create_training_job(name, f"arn:{name}", "0", request, created_at)
        with self.database.transaction() as connection:
            assert training.insert_training_job(connection, record)

    def job(self, name: str) -> TransformJobRecord:
        with self.database.reading() as connection:
            found = transforms.find_transform_job(connection, name)
        assert found is not None
        return found

    def report(self, name: str, machine: int, phase: Phase, outcome: Outcome | None = None) -> None:
        said = TransformReport(name, self.job(name).attempt, machine, phase, "said", NOW, outcome=outcome)
        transforms.apply_report(self.database, said, NOW)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield World(database, FakeFleet(), Settings(home=tmp_path))
    database.dispose()


def test_every_machine_of_an_accepted_job_is_launched_once(world: World) -> None:
    world.add("a", count=2)
    world.step()
    world.step()
    assert world.fleet.launched == ["a/1/0", "a/1/1"]


def test_a_job_without_room_waits_and_says_for_what(world: World) -> None:
    world.add("large", count=5)
    world.step()
    assert world.fleet.launched == []
    assert world.job("large").message == "Waiting for 5 instances of local: 1 CPUs short of what is free"


def test_training_and_transform_jobs_wait_in_one_line(world: World) -> None:
    world.add_training("second", NOW + 1)
    world.add("first", count=4, created_at=NOW)
    world.step()
    assert world.fleet.launched == ["first/1/0", "first/1/1", "first/1/2", "first/1/3"]


def test_a_machine_that_is_gone_is_launched_again_and_one_that_has_ended_is_not(world: World) -> None:
    world.add("a", count=2)
    world.step()
    world.report("a", 0, Phase.ENDED, Outcome.COMPLETED)
    world.fleet.lose("a", 1, 0)
    world.fleet.lose("a", 1, 1)
    world.step()
    assert world.fleet.launched == ["a/1/0", "a/1/1", "a/1/1"]


def test_a_lost_attempt_is_followed_by_another_on_all_machines(world: World) -> None:
    world.add("a", count=2)
    world.step()
    world.report("a", 1, Phase.INTERRUPTED)
    world.step()
    assert world.fleet.launched == ["a/1/0", "a/1/1", "a/2/0", "a/2/1"]


def test_a_stop_reaches_every_machine_that_is_at_work(world: World) -> None:
    world.add("a", count=2)
    world.step()
    world.report("a", 0, Phase.ENDED, Outcome.COMPLETED)
    with world.database.transaction() as connection:
        transforms.move_transform_job(connection, "a", lambda job: transform_jobs.request_stop(job, NOW))
    world.step()
    assert world.fleet.stopped == [("a", 1, 1)]


def test_a_job_whose_instance_type_is_gone_keeps_no_other_from_its_turn(world: World) -> None:
    world.add("gone", instance_type="ml.nothing.large")
    world.add("b")
    world.step()
    assert world.fleet.launched == ["b/1/0"]
