"""When evaluations are made, placed, followed and ended: against a fleet that only remembers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
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
from raymaker.platform.evaluating.notifier import Notifier
from raymaker.platform.evaluating.reconcile_evaluations import EvaluationReconciler
from raymaker.platform.placing import Placing
from raymaker.platform.records import TrainingJobRecord, TrainingJobStatus
from raymaker.platform.room import Queued
from raymaker.platform.settings import Settings
from raymaker.serving.evaluation.reports import EvaluationReport, Phase
from raymaker.serving.evaluation.spec import EvaluationSpec
from support.evaluations import CONFIG

NOW = 1_000.0
KEEP_S = 60.0
EVALUATOR = ("job", "local")
PENDING, RUNNING = EvaluationStatus.PENDING, EvaluationStatus.IN_PROGRESS


class FakeFleet:
    """Remembers what it was asked. `alive` says what each evaluator is at."""

    def __init__(self) -> None:
        self.alive: dict[tuple[str, str], EvaluationSpec | None] = {}
        self.launched: list[EvaluationSpec] = []
        self.begun: list[EvaluationSpec] = []
        self.ended: list[tuple[str, str]] = []

    def evaluators(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.alive)

    def evaluate(self, spec: EvaluationSpec) -> None:
        if spec.evaluator not in self.alive:
            self.launched.append(spec)
        if self.alive.get(spec.evaluator) != spec:
            self.begun.append(spec)
        self.alive[spec.evaluator] = spec

    def rest_evaluator(self, key: tuple[str, str]) -> None:
        self.alive[key] = None

    def end_evaluator(self, key: tuple[str, str]) -> None:
        self.ended.append(key)


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
    waiting_cpus: float = 0

    def __post_init__(self) -> None:
        self.reconciler = self.anew()

    def anew(self) -> EvaluationReconciler:
        return EvaluationReconciler(self.database, self.fleet, load_catalogue(self.settings), self.watch, KEEP_S)  # type: ignore[arg-type]

    def step(self) -> None:
        """One step, and what has room is placed, after a job that waits for `waiting_cpus`."""
        jobs = [self.another()] if self.waiting_cpus else []
        holdings = self.reconciler.step(training.unfinished_training_jobs(self.database), self.now)
        Placing(self.database, self).step(jobs, holdings, self.now, self.reconciler)

    def another(self) -> Queued:
        return Queued(
            account="another",
            created_at=0,
            name="another",
            each=Resources(self.waiting_cpus),
            count=1,
            what="an instance",
            limit_s=60,
            told=None,
            start=lambda _now: None,
            tell=lambda _connection, _reason, _now: None,
        )

    def free(self) -> Resources:
        return Resources(self.cpus, 64 * 2**30)

    def want(self, waiting: Sequence[Queued]) -> None:
        """This cluster does not grow."""

    def add_job(self, *, resources: Mapping[str, int] = MappingProxyType({}), **config: Any) -> None:
        request = {
            "AlgorithmSpecification": {"TrainingImage": "trainer:1", "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
            "CheckpointConfig": {"S3Uri": "s3://b/checkpoints"},
            "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1, **resources},
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
    assert world.all()[0].message == "Waiting for an instance of local"
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


def test_an_evaluator_that_is_gone_is_made_again(world: World) -> None:
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.fleet.alive.clear()
    world.step()
    assert [spec.label for spec in world.fleet.launched] == ["job-1", "job-1"]


def test_one_that_is_stopped_is_left_by_its_evaluator(world: World) -> None:
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    with world.database.transaction() as connection:
        evaluations.move_evaluation(connection, "job", 1, lambda record: moves.stop(record, NOW))
    world.step()
    assert world.fleet.alive == {EVALUATOR: None}
    assert world.fleet.ended == []


def test_the_evaluator_of_a_job_takes_one_checkpoint_after_another(world: World) -> None:
    world.add_job()
    for number in (1, 2):
        world.watch.store(f"epoch-{number}", NOW + number)
        world.step()
        world.end(number)
        world.step()
        world.cpus = 0  # it needs none that it does not have already
    assert [spec.label for spec in world.fleet.launched] == ["job-1"]
    assert [spec.label for spec in world.fleet.begun] == ["job-1", "job-2"]
    assert world.fleet.ended == []


def test_evaluations_of_a_job_take_turns(world: World) -> None:
    world.add_job(Schedule="OnRequest")
    for name in ("epoch-1", "epoch-2"):
        with world.database.transaction() as connection:
            evaluations.insert_evaluation(connection, world.job(), Trigger.REQUEST, CONFIG, now=NOW, checkpoint=name)
    world.step()
    world.step()
    assert world.looks() == [("epoch-1", RUNNING), ("epoch-2", PENDING)]
    assert world.all()[1].message == "Waiting for evaluation 1: a job's evaluations take turns"
    world.end(1)
    world.step()
    assert world.looks() == [("epoch-1", EvaluationStatus.COMPLETED), ("epoch-2", RUNNING)]
    world.end(2)
    world.step()
    assert world.fleet.ended == [EVALUATOR], "nothing more is to come"


def evaluate_one(world: World) -> None:
    """Have one evaluation completed of a job that goes on."""
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.end(1)
    world.step()
    assert world.fleet.alive == {EVALUATOR: None}


def test_an_evaluator_that_waits_in_vain_is_ended(world: World) -> None:
    evaluate_one(world)
    world.now += KEEP_S - 1
    world.step()
    assert world.fleet.ended == []
    world.now += 1
    world.step()
    assert world.fleet.ended == [EVALUATOR]


def test_an_evaluator_goes_with_its_jobs_last_evaluation(world: World) -> None:
    evaluate_one(world)
    world.report("Completed", outcome=Outcome.COMPLETED, model_uri="s3://b/model.tar.gz")
    world.step()
    assert world.looks()[-1] == (None, RUNNING)
    assert len(world.fleet.launched) == 1
    world.end(2)
    world.step()
    assert world.fleet.ended == [EVALUATOR]


def test_an_evaluator_without_work_makes_way_for_a_job_that_waits(world: World) -> None:
    evaluate_one(world)
    world.waiting_cpus = 5
    world.watch.store("epoch-2", NOW + 2)
    world.step()
    assert world.looks()[-1] == ("epoch-2", PENDING)
    assert world.fleet.ended == [EVALUATOR]
    assert world.reconciler.are_making_way, "the next look comes soon"
    world.step()
    assert world.fleet.ended == [EVALUATOR] * 2, "it may not have heard"
    world.fleet.alive.clear()
    world.step()
    assert world.looks()[-1] == ("epoch-2", PENDING)
    world.waiting_cpus = 0
    world.step()
    assert world.looks()[-1] == ("epoch-2", RUNNING)
    assert len(world.fleet.launched) == 2


def test_an_evaluator_at_work_goes_on_while_a_job_waits(world: World) -> None:
    world.add_job()
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.waiting_cpus = 5
    world.step()
    assert world.fleet.ended == []


def test_an_evaluator_without_work_makes_way_for_endpoints(world: World) -> None:
    evaluate_one(world)
    world.reconciler.is_room_wanted = True
    world.watch.store("epoch-2", NOW + 2)
    world.step()
    assert world.fleet.ended == [EVALUATOR]
    assert world.looks()[-1] == ("epoch-2", PENDING)


def test_a_gang_that_may_grow_finds_the_room_of_evaluators_without_work(world: World) -> None:
    world.add_job(resources={"MaxInstanceCount": 4})
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.end(1)
    world.step()
    assert world.fleet.ended == [EVALUATOR]


def test_evaluators_that_an_earlier_process_left_are_ended(world: World) -> None:
    world.fleet.alive["gone", "local"] = None
    world.step()
    assert world.fleet.ended == [("gone", "local")]


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


def test_an_alarms_webhook_is_told_until_it_says_that_it_has_heard(world: World) -> None:
    world.add_job(Alarms=[{"MetricName": "accuracy", "LessThan": 0.5, "NotificationTopic": "http://hook"}])
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.end(1, accuracy=0.4)
    heard: list[tuple[str, dict[str, Any]]] = []
    fails = [True]

    async def post(url: str, content: bytes) -> None:
        heard.append((url, json.loads(content)))
        if fails:
            raise OSError(f"not now: {fails.pop()}")

    notifier = Notifier(world.database, post, lambda: world.now)
    for _ in range(2):
        notifier.step()
    assert len(heard) == 1, "it waits before it tries again"
    world.now += 1
    for _ in range(2):
        notifier.step()
    assert len(heard) == 2, "one that has heard is told no more"
    url, notice = heard[-1]
    assert url == "http://hook"
    assert notice == {
        "eventName": "EvaluationAlarm",
        "eventTime": "1970-01-01T00:16:40.000+00:00",
        "trainingJobName": "job",
        "trainingJobArn": "arn:job",
        "evaluationNumber": 1,
        "checkpointName": "epoch-1",
        "metricName": "accuracy",
        "metricValue": 0.4,
        "reason": "accuracy is 0.4, less than 0.5",
        "action": "Notify",
    }
    assert world.events("NotificationFailed") == []


def test_a_webhook_that_never_hears_is_given_up_and_that_is_told(world: World) -> None:
    world.add_job(Alarms=[{"MetricName": "accuracy", "LessThan": 0.5, "NotificationTopic": "http://gone"}])
    world.watch.store("epoch-1", NOW + 1)
    world.step()
    world.end(1, accuracy=0.4)
    tries: list[float] = []

    async def post(url: str, content: bytes) -> None:
        tries.append(world.now - NOW)
        raise OSError("nobody there")

    notifier = Notifier(world.database, post, lambda: world.now)
    for _ in range(300):
        notifier.step()
        world.now += 1
    assert tries == [0, 1, 3, 7, 15, 31, 63, 127]
    assert world.events("NotificationFailed") == ["nobody heard of an alarm in 8 tries: http://gone: nobody there"]


def test_evaluations_go_with_their_job(world: World) -> None:
    world.add_job()
    world.report("Completed", outcome=Outcome.COMPLETED, model_uri="s3://b/model")
    with world.database.transaction() as connection:
        training.delete_training_job(connection, world.job())
    assert world.all() == []
    world.step()
    assert world.fleet.launched == []
