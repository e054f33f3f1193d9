"""When evaluations are made, placed, followed and ended: against a fleet that only remembers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.checkpoints.stored import StoredCheckpoint
from raymaker.actors.reports import JobReport, Outcome
from raymaker.actors.spec import Resources
from raymaker.platform import transitions
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.database import evaluation_reports, evaluations, events, metrics, training
from raymaker.platform.database.engine import Database
from raymaker.platform.database.metrics import MetricQuery
from raymaker.platform.evaluating import evaluations as moves
from raymaker.platform.evaluating.evaluations import EvaluationRecord, EvaluationStatus, Trigger
from raymaker.platform.evaluating.reconcile_evaluations import EvaluationReconciler
from raymaker.platform.placing import Placing
from raymaker.platform.records import TrainingJobRecord, TrainingJobStatus
from raymaker.platform.settings import Settings
from raymaker.serving.evaluation.reports import EvaluationReport, Phase
from raymaker.serving.evaluation.spec import EvaluationSpec
from support.evaluations import CONFIG

NOW = 1_000.0
PENDING, RUNNING = EvaluationStatus.PENDING, EvaluationStatus.IN_PROGRESS


class FakeFleet:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.alive: dict[tuple[str, int], EvaluationSpec] = {}
        self.launched: list[EvaluationSpec] = []
        self.stopped: list[tuple[str, int]] = []

    def evaluators(self) -> frozenset[tuple[str, int]]:
        return frozenset(self.alive)

    def launch_evaluation(self, spec: EvaluationSpec) -> None:
        self.launched.append(spec)
        self.alive[spec.job_name, spec.number] = spec

    def stop_evaluation(self, key: tuple[str, int]) -> None:
        self.stopped.append(key)


class FakeWatch:
    """Finds what the test has stored, newest first."""

    def __init__(self) -> None:
        self.stored: list[StoredCheckpoint] = []

    def newest(self, uri: str) -> list[StoredCheckpoint]:
        assert uri == "s3://b/checkpoints"
        return self.stored

    def keep_only(self, uris: set[str]) -> None:
        assert uris <= {"s3://b/checkpoints"}

    def store(self, name: str, modified_at: float) -> None:
        self.stored.insert(0, StoredCheckpoint(name, 1, 1, modified_at))


@dataclasses.dataclass
class World:
    database: Database
    settings: Settings
    fleet: FakeFleet = dataclasses.field(default_factory=FakeFleet)
    watch: FakeWatch = dataclasses.field(default_factory=FakeWatch)
    cpus: float = 4
    now: float = NOW

    def __post_init__(self) -> None:
        self.reconciler = self.anew()

    def anew(self) -> EvaluationReconciler:
        return EvaluationReconciler(self.database, self.fleet, load_catalogue(self.settings), self.watch)  # type: ignore[arg-type]

    def step(self) -> None:
        """One step, and what has room is placed."""
        line = self.reconciler.step(training.unfinished_training_jobs(self.database), self.now)
        Placing(self.database, self).step([], line.waiting, line.holdings, self.now)

    def free(self) -> Resources:
        return Resources(self.cpus, 64 * 2**30)

    def add_job(self, **config: Any) -> None:
        request = {
            "AlgorithmSpecification": {"TrainingImage": "trainer:1", "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
            "CheckpointConfig": {"S3Uri": "s3://b/checkpoints"},
            "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1},
            "EvaluationConfig": {**CONFIG, **config},
        }
        record = transitions.create_training_job("job", "arn:job", "000000000000", request, self.now)
        with self.database.transaction() as connection:
            assert training.insert_training_job(connection, record)
        training.start_attempt(self.database, "job", self.now)
        self.report("Training", training_started_at=self.now)

    def report(self, phase: str, **facts: Any) -> None:
        training.apply_report(self.database, JobReport("job", 1, phase, phase, self.now, **facts), self.now)

    def end(self, number: int, phase: Phase = Phase.COMPLETED, **values: float) -> None:
        """Play an evaluation's machine to its end."""
        attempt = evaluation_reports.begin(self.database, "job", number, self.now)
        told = EvaluationReport("job", number, attempt, phase, "said", self.now, 10, values)
        evaluation_reports.apply_report(self.database, told, self.now)
        self.fleet.alive.pop(("job", number), None)

    def all(self) -> list[EvaluationRecord]:
        with self.database.reading() as connection:
            return evaluations.list_evaluations(connection, "job")

    def looks(self) -> list[tuple[str | None, EvaluationStatus]]:
        return [(record.checkpoint, record.status) for record in self.all()]

    def job(self) -> TrainingJobRecord:
        with self.database.reading() as connection:
            found = training.find_training_job(connection, "job")
        assert found is not None
        return found

    def events(self, *kinds: str) -> list[str]:
        with self.database.reading() as connection:
            found, _ = events.list_events(connection, "arn:job", 100, None)
        return [event.message for event in found if event.kind in kinds]


@pytest.fixture
def world(home: Path) -> Iterator[World]:
    settings = Settings(home=home)
    database = Database(settings.resolved_database_url)
    database.migrate()
    yield World(database, settings)
    database.dispose()


def test_a_new_checkpoint_is_evaluated_and_an_old_one_is_not(world: World) -> None:
    world.watch.store("of-another-job", NOW - 100)
    world.add_job()
    world.step()
    assert world.looks() == []
    world.watch.store("epoch-1", NOW + 10)
    world.step()
    assert world.looks() == [("epoch-1", RUNNING)]
    (spec,) = world.fleet.launched
    assert (spec.scoring.image, spec.scoring.model_uri, spec.scoring.checkpoint) == (
        "trainer:1",
        "s3://b/checkpoints",
        "epoch-1",
    )
    assert spec.records_uri == "s3://b/out/job/evaluations/1/records.parquet"
    world.end(1, accuracy=0.5)
    world.step()
    assert world.looks() == [("epoch-1", EvaluationStatus.COMPLETED)]
    with world.database.reading() as connection:
        found, _ = metrics.list_metrics(connection, MetricQuery("job", source="Evaluation"), 10, None)
    assert [(each.name, each.value, each.step) for each in found] == [("evaluation:accuracy", 0.5, 1)]


def test_what_comes_while_another_is_evaluated_is_passed_over_but_for_the_newest(world: World) -> None:
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    for number in (2, 3, 4):
        world.watch.store(f"epoch-{number}", NOW + number)
        world.step()
    assert world.looks() == [("epoch-1", RUNNING)]
    world.end(1)
    world.step()
    assert [name for name, _ in world.looks()] == ["epoch-1", "epoch-4"]
    (message,) = world.events("EvaluationSkipped")
    assert message.startswith("checkpoints epoch-3, epoch-2 will not be evaluated")


def test_one_that_was_asked_for_of_an_older_checkpoint_has_no_newer_one_evaluated_again(world: World) -> None:
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.watch.store("epoch-2", NOW + 2)
    world.step()
    world.end(1)
    with world.database.transaction() as connection:
        evaluations.insert_evaluation(
            connection, world.job(), Trigger.REQUEST, CONFIG, now=NOW, checkpoint="epoch-1", checkpoint_at=NOW + 1
        )
    world.step()
    world.end(2)
    world.step()
    assert [name for name, _ in world.looks()] == ["epoch-2", "epoch-1"]


def test_one_that_waits_for_room_takes_the_newest(world: World) -> None:
    world.add_job()
    world.cpus = 0
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.watch.store("epoch-2", NOW + 2)
    world.step()
    assert world.looks() == [("epoch-2", PENDING)]
    assert "short of what is free" in world.all()[0].message
    assert world.events("EvaluationSkipped") == ["checkpoint epoch-1 will not be evaluated: there was no room yet"]
    world.cpus = 4
    world.step()
    assert world.looks() == [("epoch-2", RUNNING)]


def test_one_that_ends_while_the_step_looks_is_not_launched_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.step()

    def look() -> frozenset[tuple[str, int]]:
        world.end(1)
        return frozenset()

    monkeypatch.setattr(world.fleet, "evaluators", look)
    world.step()
    assert [spec.number for spec in world.fleet.launched] == [1]


def test_an_interval_is_kept(world: World) -> None:
    world.add_job(IntervalInSeconds=60)
    for number in range(1, 8):
        world.now = NOW + 10 * number
        world.watch.store(f"epoch-{number}", world.now)
        world.step()
        if world.all()[-1].status is RUNNING:
            world.end(world.all()[-1].number)
    assert [name for name, _ in world.looks()] == ["epoch-1", "epoch-7"]


def test_one_on_request_alone_is_never_made(world: World) -> None:
    world.add_job(Schedule="OnRequest")
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.report("Completed", outcome=Outcome.COMPLETED, model_uri="s3://b/model")
    world.step()
    assert world.looks() == []


def test_the_model_of_a_job_that_ends_is_evaluated_too(world: World) -> None:
    world.add_job()
    world.report("Completed", outcome=Outcome.COMPLETED, model_uri="s3://b/model.tar.gz")
    world.step()
    assert world.looks() == [(None, RUNNING)]
    assert world.all()[0].trigger is Trigger.END
    (spec,) = world.fleet.launched
    assert (spec.scoring.model_uri, spec.scoring.checkpoint) == ("s3://b/model.tar.gz", None)


def test_one_that_failed_leaves_the_job_and_the_next_alone(world: World) -> None:
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.end(1, Phase.FAILED)
    world.watch.store("epoch-2", NOW + 2)
    world.step()
    assert world.looks() == [("epoch-1", EvaluationStatus.FAILED), ("epoch-2", RUNNING)]
    assert world.job().status is TrainingJobStatus.IN_PROGRESS


def test_a_machine_that_is_gone_is_made_again_and_one_that_nobody_wants_is_ended(world: World) -> None:
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.fleet.alive.clear()
    world.step()
    assert [spec.label for spec in world.fleet.launched] == ["job-1", "job-1"]
    with world.database.transaction() as connection:
        evaluations.move_evaluation(connection, "job", 1, lambda record: moves.stop(record, NOW))
    world.step()
    assert world.fleet.stopped == [("job", 1)]
    world.reconciler = world.anew()
    world.step()
    assert world.fleet.stopped == [("job", 1)] * 2, "a process that begins looks for what another left"


def test_an_alarm_is_told_or_stops_the_job(world: World) -> None:
    notify = {"MetricName": "accuracy", "LessThan": 0.5}
    stop = {"MetricName": "accuracy", "Patience": 1, "Action": "StopTrainingJob"}
    world.add_job(Alarms=[notify, stop])
    for number, accuracy in enumerate((0.4, 0.9, 0.8), start=1):
        world.watch.store(f"epoch-{number}", NOW + number)
        world.step()
        assert world.job().status is TrainingJobStatus.IN_PROGRESS
        world.end(number, accuracy=accuracy)
    assert world.job().status is TrainingJobStatus.STOPPING
    assert [message.partition(": ")[2] for message in world.events("EvaluationAlarm")] == [
        "accuracy is 0.4, less than 0.5",
        "accuracy was 0.9 at best and has not improved in 1 evaluations: 0.8 now",
    ]
    assert len(world.events("EarlyStopping")) == 1
    world.watch.store("epoch-4", NOW + 4)
    world.step()
    assert len(world.all()) == 3, "a job that stops is not evaluated any more"


def test_evaluations_go_with_their_job(world: World) -> None:
    world.add_job()
    world.report("Completed", outcome=Outcome.COMPLETED, model_uri="s3://b/model")
    with world.database.transaction() as connection:
        training.delete_training_job(connection, world.job())
    assert world.all() == []
    world.step()
    assert world.fleet.launched == []
