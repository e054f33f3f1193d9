"""The reconciler against a fleet that only remembers: every decision, without a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.errors import ImageError
from raymaker.actors.reports import Activity, FleetSignals, JobReport, Outcome, UpdateReport, UpdateStage
from raymaker.actors.spec import Resources, TrainingSpec
from raymaker.platform import transitions
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.database import events, hosting, training, updates
from raymaker.platform.database.activity import record_activity
from raymaker.platform.database.engine import Database
from raymaker.platform.database.events import record_endpoint_event
from raymaker.platform.reconcile import Reconciler
from raymaker.platform.records import (
    Deployment,
    EndpointRecord,
    EndpointStatus,
    ResolvedContainer,
    ResolvedVariant,
    RolloutStage,
    TrainingJobRecord,
)
from raymaker.platform.room import Queued
from raymaker.platform.settings import Settings
from raymaker.serving.endpoint import EndpointObservation, EndpointState
from raymaker.serving.spec import EndpointSpec
from support.evaluations import NoEvaluators, blind_watch
from support.pools import NoPools

GIB = 2**30
NOW = 1_000.0


class FakeFleet(NoEvaluators, NoPools):
    """Remembers what it was asked; `die` and `become` are what the world does."""

    def __init__(self, cpus: float = 4) -> None:
        self.cpus = cpus
        self.launched: list[TrainingSpec] = []
        self.alive: set[tuple[str, int]] = set()
        self.stopped: list[tuple[str, int]] = []
        self.updated: list[tuple[tuple[str, int], int]] = []
        self.deployed: list[EndpointSpec] = []
        self.beside: list[str] = []
        self.share = 1.0
        self.removed: list[str] = []
        self.seen: dict[str, EndpointObservation] = {}
        self.refusal: Exception | None = None

    def supervisors(self) -> frozenset[tuple[str, int]]:
        return frozenset(self.alive)

    def free(self) -> Resources:
        return Resources(self.cpus - len(self.alive), 64 * GIB, 0)

    def want(self, waiting: Sequence[Queued]) -> None:
        """This cluster does not grow."""

    def launch(self, spec: TrainingSpec) -> None:
        self.launched.append(spec)
        self.alive.add((spec.job_name, spec.attempt))

    def stop(self, attempt: tuple[str, int]) -> None:
        self.stopped.append(attempt)

    def update(self, attempt: tuple[str, int], revision: int) -> None:
        self.updated.append((attempt, revision))

    def endpoints(self, names: list[str]) -> Mapping[str, EndpointObservation]:
        missing = EndpointObservation(EndpointState.MISSING)
        return {name: self.seen.get(name, missing) for name in names}

    def deploy(self, spec: EndpointSpec, beside: Sequence[EndpointSpec], *, share: float) -> None:
        self.share = share
        self.beside = [other.config_name for other in beside]
        if self.refusal is not None:
            raise self.refusal
        self.deployed.append(spec)
        self.seen[spec.endpoint_name] = EndpointObservation(EndpointState.DEPLOYING)

    def remove_endpoint(self, name: str) -> None:
        self.removed.append(name)

    def become(self, name: str, state: EndpointState, message: str = "", running: Sequence[str] = ("front",)) -> None:
        self.seen[name] = EndpointObservation(state, running_counts=dict.fromkeys(running, 1), message=message)


@dataclasses.dataclass
class World:
    database: Database
    fleet: FakeFleet
    settings: Settings

    def reconciler(self) -> Reconciler:
        return Reconciler(self.database, self.fleet, self.settings, load_catalogue(self.settings), blind_watch())

    def add_job(self, name: str, instance_type: str = "local", **resources: int) -> None:
        asked = request(instance_type, **resources)
        record = transitions.create_training_job(name, f"arn:{name}", "000000000000", asked, NOW)
        with self.database.transaction() as connection:
            assert training.insert_training_job(connection, record)

    def change_job(self, name: str, **changes: Any) -> None:
        with self.database.transaction() as connection:
            updates.request_update(connection, name, changes, "somebody", NOW)

    def report_update(self, name: str, stage: UpdateStage, attempt: int = 1) -> None:
        updates.apply_update_report(self.database, UpdateReport(name, attempt, 1, stage), NOW)

    def job(self, name: str) -> TrainingJobRecord:
        with self.database.reading() as connection:
            found = training.find_training_job(connection, name)
        assert found is not None
        return found

    def add_endpoint(self, name: str) -> None:
        record = transitions.create_endpoint(name, f"arn:{name}", "000000000000", deployment("first"), NOW)
        with self.database.transaction() as connection:
            assert hosting.insert_endpoint(connection, record)

    def endpoint(self, name: str) -> EndpointRecord | None:
        with self.database.reading() as connection:
            return hosting.find_endpoint(connection, name)

    def update_endpoint(self, name: str, config: str, *variants: str, policy: Mapping[str, Any] | None = None) -> None:
        desired = deployment(config, *variants)
        with self.database.transaction() as connection:
            hosting.move_endpoint(
                connection, name, lambda record: transitions.update_endpoint(record, desired, NOW, policy)
            )

    def status(self, name: str) -> EndpointStatus:
        found = self.endpoint(name)
        assert found is not None
        return found.status


def request(instance_type: str, **resources: int) -> dict[str, Any]:
    return {
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "file:///tmp/out"},
        "ResourceConfig": {"InstanceType": instance_type, "InstanceCount": 1, **resources},
    }


def deployment(config: str, *names: str) -> Deployment:
    """A deployment of these variants, of one alone where none is named."""
    return Deployment(config, tuple(map(variant, names or ("AllTraffic",))))


def variant(name: str) -> ResolvedVariant:
    return ResolvedVariant({"VariantName": name, "InstanceType": "local"}, "model", (ResolvedContainer("image"),))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield World(database, FakeFleet(), Settings(home=tmp_path))
    database.dispose()


def test_an_accepted_job_is_launched_once(world: World) -> None:
    world.add_job("a")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    reconciler.step(NOW)
    assert [(spec.job_name, spec.attempt) for spec in world.fleet.launched] == [("a", 1)]


def test_a_job_without_room_waits_and_says_for_what(world: World) -> None:
    world.add_job("large", "ml.m5.12xlarge")
    world.reconciler().step(NOW)
    assert world.fleet.launched == []
    assert world.job("large").message.startswith("Waiting for an instance of ml.m5.12xlarge: 44 CPUs")


def test_a_waiting_job_keeps_its_place_before_later_ones_that_would_fit(world: World) -> None:
    world.add_job("large", "ml.m5.2xlarge")
    world.add_job("small")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    assert world.fleet.launched == []
    assert world.job("small").message == "Waiting for an instance of local"
    world.fleet.cpus = 16
    reconciler.step(NOW)
    assert [spec.job_name for spec in world.fleet.launched] == ["large", "small"]


def test_a_gang_waits_for_room_for_all_its_instances(world: World) -> None:
    world.add_job("gang", "ml.m5.large", InstanceCount=4)
    world.add_job("small")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    assert world.fleet.launched == []
    assert world.job("gang").message == "Waiting for 4 instances of ml.m5.large: 4 CPUs short of what is free"
    assert world.job("small").message == "Waiting for an instance of local"
    world.fleet.cpus = 9
    reconciler.step(NOW)
    assert [(spec.job_name, spec.instance_count) for spec in world.fleet.launched] == [("gang", 4), ("small", 1)]


def test_an_elastic_gang_waits_for_its_fewest_instances_only(world: World) -> None:
    world.add_job("gang", "ml.m5.large", InstanceCount=3, MinInstanceCount=3, MaxInstanceCount=8)
    reconciler = world.reconciler()
    reconciler.step(NOW)
    assert world.job("gang").message.startswith("Waiting for at least 3 instance(s) of ml.m5.large: 2 CPUs short")
    world.fleet.cpus = 6
    reconciler.step(NOW)
    assert [(spec.min_instance_count, spec.instance_count) for spec in world.fleet.launched] == [(3, 8)]


def test_a_gang_that_an_earlier_process_launched_is_launched_once_more_so_that_its_room_is_kept(world: World) -> None:
    world.add_job("gang", InstanceCount=2)
    world.add_job("single")
    first = world.reconciler()
    first.step(NOW)
    first.step(NOW)
    assert [spec.job_name for spec in world.fleet.launched] == ["gang", "single"]
    second = world.reconciler()
    second.step(NOW)
    second.step(NOW)
    assert [spec.job_name for spec in world.fleet.launched] == ["gang", "single", "gang"]


def test_what_waits_is_placed_after_what_was_started_is_counted(world: World) -> None:
    """A gang whose supervisor is gone is launched before a queued job may take its room."""
    world.add_job("queued")
    world.add_job("gang", InstanceCount=4)
    training.start_attempt(world.database, "gang", NOW)
    world.fleet.cpus = 1
    world.reconciler().step(NOW)
    assert [spec.job_name for spec in world.fleet.launched] == ["gang"]
    assert world.job("queued").message.startswith("Waiting for an instance of local")


def test_a_supervisor_that_is_gone_is_launched_again_with_the_same_attempt(world: World) -> None:
    world.add_job("a")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    world.fleet.alive.clear()
    world.reconciler().step(NOW)
    assert [spec.attempt for spec in world.fleet.launched] == [1, 1]


def test_a_job_that_ends_while_the_step_looks_is_not_launched_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is read before its end, and the supervisors after it has gone."""
    world.add_job("a")
    reconciler = world.reconciler()
    reconciler.step(NOW)

    def look() -> frozenset[tuple[str, int]]:
        last = JobReport("a", 1, "Completed", "done", NOW, outcome=Outcome.COMPLETED)
        training.apply_report(world.database, last, NOW)
        return frozenset()

    monkeypatch.setattr(world.fleet, "supervisors", look)
    reconciler.step(NOW)
    assert [spec.job_name for spec in world.fleet.launched] == ["a"]


def test_a_lost_attempt_is_followed_by_the_next(world: World) -> None:
    world.add_job("a")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    training.apply_report(world.database, JobReport("a", 1, "Interrupted", "container gone", NOW), NOW)
    reconciler.step(NOW)
    assert [spec.attempt for spec in world.fleet.launched] == [1, 2]


def test_a_stopping_job_is_told_at_every_step_until_it_ends(world: World) -> None:
    world.add_job("a")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    with world.database.transaction() as connection:
        training.move_training_job(connection, "a", lambda job: transitions.request_stop(job, NOW))
    reconciler.step(NOW)
    reconciler.step(NOW)
    assert world.fleet.stopped == [("a", 1), ("a", 1)]
    training.apply_report(world.database, JobReport("a", 1, "Stopped", "stopped", NOW, outcome=Outcome.STOPPED), NOW)
    reconciler.step(NOW)
    assert len(world.fleet.stopped) == 2


def trains(world: World, name: str, attempt: int = 1, revision: int = 0) -> None:
    report = JobReport(name, attempt, "Training", "trains", NOW, revision=revision)
    training.apply_report(world.database, report, NOW)


def test_a_change_is_told_at_every_step_until_it_is_made(world: World) -> None:
    world.add_job("a")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    trains(world, "a")
    world.change_job("a", HyperParameters={"rate": "1"})
    reconciler.step(NOW)
    world.reconciler().step(NOW)
    assert world.fleet.updated == [(("a", 1), 1)] * 2
    world.report_update("a", UpdateStage.APPLIED)
    reconciler.step(NOW)
    assert len(world.fleet.updated) == 2


def test_a_change_without_a_supervisor_brings_one_that_runs_what_is_in_force(world: World) -> None:
    world.add_job("a")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    trains(world, "a")
    world.change_job("a", HyperParameters={"rate": "1"})
    world.fleet.alive.clear()
    reconciler.step(NOW)
    assert (world.fleet.launched[-1].attempt, dict(world.fleet.launched[-1].hyperparameters)) == (1, {})
    world.report_update("a", UpdateStage.APPLIED)
    world.fleet.alive.clear()
    reconciler.step(NOW)
    assert dict(world.fleet.launched[-1].hyperparameters) == {"rate": "1"}


def test_other_machines_are_waited_for_like_the_first(world: World) -> None:
    world.add_job("a")
    world.add_job("small")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    trains(world, "a")
    world.change_job("a", ResourceConfig={"InstanceType": "ml.m5.2xlarge"}, IfNotHeard="Restart")
    world.report_update("a", UpdateStage.RESTARTING)
    world.report_update("a", UpdateStage.MOVING)
    world.fleet.alive.discard(("a", 1))
    reconciler.step(NOW)
    assert world.job("a").message.startswith("Waiting for an instance of ml.m5.2xlarge")
    assert [spec.attempt for spec in world.fleet.launched if spec.job_name == "a"] == [1]
    world.fleet.cpus = 16
    reconciler.step(NOW)
    launched = world.fleet.launched[-1]
    assert (launched.attempt, launched.instance_type.name, launched.revisions.number) == (2, "ml.m5.2xlarge", 1)
    trains(world, "a", attempt=2, revision=1)
    assert world.job("a").open_update is None


def test_a_job_that_cannot_be_moved_does_not_keep_others_waiting(world: World) -> None:
    world.add_job("odd", "type.that.was.removed")
    world.add_job("a")
    world.reconciler().step(NOW)
    assert [spec.job_name for spec in world.fleet.launched] == ["a"]


def test_an_endpoint_is_deployed_once_and_enters_service_when_it_is_healthy(world: World) -> None:
    world.add_endpoint("e")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    reconciler.step(NOW)
    assert len(world.fleet.deployed) == 1
    assert world.status("e") is EndpointStatus.CREATING
    world.fleet.become("e", EndpointState.HEALTHY)
    reconciler.step(NOW)
    assert world.status("e") is EndpointStatus.IN_SERVICE


def test_an_endpoint_that_serve_has_forgotten_is_deployed_again(world: World) -> None:
    world.add_endpoint("e")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    world.fleet.become("e", EndpointState.HEALTHY)
    reconciler.step(NOW)
    del world.fleet.seen["e"]
    reconciler.step(NOW)
    assert len(world.fleet.deployed) == 2


def test_a_failed_create_says_what_its_replica_said_and_leaves_nothing(world: World) -> None:
    world.add_endpoint("e")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    events.record_endpoint_event(world.database, "e", 1, "never answered /ping", failed=True, now=NOW)
    world.fleet.become("e", EndpointState.FAILED, "a traceback of Serve's")
    reconciler.step(NOW)
    found = world.endpoint("e")
    assert found is not None
    assert found.status is EndpointStatus.FAILED
    assert found.failure_reason == "never answered /ping"
    reconciler.step(NOW)
    assert world.fleet.removed == ["e"]


def test_a_failed_update_goes_back_to_what_worked(world: World) -> None:
    world.add_endpoint("e")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    world.fleet.become("e", EndpointState.HEALTHY)
    reconciler.step(NOW)
    world.update_endpoint("e", "second")
    reconciler.step(NOW)
    world.fleet.become("e", EndpointState.FAILED, "it did not start")
    reconciler.step(NOW)
    assert world.status("e") is EndpointStatus.ROLLING_BACK
    reconciler.step(NOW)
    assert [spec.config_name for spec in world.fleet.deployed] == ["first", "second", "first"]
    world.fleet.become("e", EndpointState.HEALTHY)
    reconciler.step(NOW)
    found = world.endpoint("e")
    assert found is not None
    assert (found.status, found.failure_reason) == (EndpointStatus.IN_SERVICE, "it did not start")


def test_a_refused_deployment_fails_the_endpoint_with_the_reason(world: World) -> None:
    world.add_endpoint("e")
    world.fleet.refusal = ImageError("no such image")
    world.reconciler().step(NOW)
    found = world.endpoint("e")
    assert found is not None
    assert (found.status, found.failure_reason) == (EndpointStatus.FAILED, "no such image")


def test_a_deleted_endpoint_is_removed_and_then_forgotten(world: World) -> None:
    world.add_endpoint("e")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    with world.database.transaction() as connection:
        hosting.move_endpoint(connection, "e", lambda record: transitions.delete_endpoint(record, NOW))
    reconciler.step(NOW)
    assert world.fleet.removed == ["e"]
    del world.fleet.seen["e"]
    reconciler.step(NOW)
    assert world.endpoint("e") is None


def serve_first(world: World) -> Reconciler:
    """An endpoint in service."""
    world.add_endpoint("e")
    reconciler = world.reconciler()
    reconciler.step(NOW)
    world.fleet.become("e", EndpointState.HEALTHY)
    reconciler.step(NOW)
    return reconciler


def test_several_variants_come_up_beside_the_old_front_take_over_and_only_then_the_old_goes(world: World) -> None:
    reconciler = serve_first(world)
    world.update_endpoint("e", "ab", "a", "b")
    seen = []
    for running in (["front", "a@2", "b@2"], ["front", "a@2", "b@2"], ["front", "a@2", "b@2"]):
        reconciler.step(NOW)
        seen.append((world.fleet.deployed[-1].config_name, world.fleet.beside))
        world.fleet.become("e", EndpointState.HEALTHY, running=running)
        reconciler.step(NOW)
    assert seen == [("first", ["ab"]), ("ab", ["first"]), ("ab", [])]
    found = world.endpoint("e")
    assert (found.status, found.running_counts) == (EndpointStatus.IN_SERVICE, {"a": 1, "b": 1})


def test_variants_that_do_not_come_up_leave_the_old_front_as_it_was(world: World) -> None:
    reconciler = serve_first(world)
    world.update_endpoint("e", "ab", "a", "b")
    reconciler.step(NOW)
    world.fleet.become("e", EndpointState.FAILED, "b did not start")
    reconciler.step(NOW)
    reconciler.step(NOW)
    last = world.fleet.deployed[-1]
    assert (last.config_name, last.revision, world.fleet.beside) == ("first", 1, [])


ROUTING = {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10}, "WaitIntervalInSeconds": 60}
CANARY = {
    "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": ROUTING, "MaximumExecutionTimeoutInSeconds": 600},
    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "5XXErrorRate > 0.1"}]},
}
NEW_FLEET = "AllTraffic@2"


def begin_canary(world: World) -> Reconciler:
    """An update whose first step's traffic flows."""
    reconciler = serve_first(world)
    world.update_endpoint("e", "new", policy=CANARY)
    for _ in range(2):
        reconciler.step(NOW)
        world.fleet.become("e", EndpointState.HEALTHY, running=["front", "AllTraffic@1", NEW_FLEET])
        reconciler.step(NOW)
    return reconciler


def deployed(world: World) -> tuple[str, list[str], float, int | None]:
    last = world.fleet.deployed[-1]
    return last.config_name, world.fleet.beside, world.fleet.share, last.step


def test_a_canary_gets_its_share_then_all_and_only_then_the_old_fleet_goes(world: World) -> None:
    reconciler = begin_canary(world)
    assert [spec.is_simple for spec in world.fleet.deployed] == [True, True, False]
    assert deployed(world) == ("new", ["first"], 0.1, 0)
    reconciler.step(NOW + 59)
    world.reconciler().step(NOW + 59)  # another process takes over
    assert deployed(world) == ("new", ["first"], 0.1, 0)
    world.fleet.become("e", EndpointState.HEALTHY)
    reconciler.step(NOW + 60)
    reconciler.step(NOW + 60)
    assert deployed(world) == ("new", ["first"], 1.0, 1)
    world.fleet.become("e", EndpointState.HEALTHY)
    reconciler.step(NOW + 70)
    reconciler.step(NOW + 130)
    assert world.status("e") is EndpointStatus.IN_SERVICE
    reconciler.step(NOW + 131)
    assert deployed(world) == ("new", [], 1.0, None)


def answers(fleet: str, server_errors: int, at: float) -> Activity:
    return Activity("e", "r", at, 0, at, fleets={fleet: FleetSignals(20, 0, server_errors, 0.1, 0.1)})


def replica_fails(world: World, now: float) -> None:
    record_endpoint_event(world.database, "e", 2, "the container ended", failed=True, now=now)


def replicas_are_unhealthy(world: World, now: float) -> None:
    world.fleet.seen["e"] = EndpointObservation(
        EndpointState.UNHEALTHY,
        message="died",
        states={"front": EndpointState.HEALTHY, NEW_FLEET: EndpointState.UNHEALTHY},
    )


def alarm_fires(world: World, now: float) -> None:
    record_activity(world.database, answers(NEW_FLEET, 3, now))


def too_long(world: World, now: float) -> None:
    world.fleet.become("e", EndpointState.DEPLOYING)


@pytest.mark.parametrize(
    ("happens", "later", "reason"),
    [
        (replica_fails, 5, "the container ended"),
        (replicas_are_unhealthy, 5, f"replicas of {NEW_FLEET} failed: died"),
        (alarm_fires, 5, "alarm 5XXErrorRate > 0.1 fired: 0.15"),
        (too_long, 600, "MaximumExecutionTimeoutInSeconds"),
    ],
)
def test_a_rollout_with_which_something_is_wrong_goes_back_by_itself(world, happens, later, reason):
    reconciler = begin_canary(world)
    happens(world, NOW + later)
    reconciler.step(NOW + later)
    found = world.endpoint("e")
    assert found.status is EndpointStatus.ROLLING_BACK
    assert reason in found.failure_reason
    reconciler.step(NOW + later)
    assert deployed(world) == ("first", ["new"], 1.0, None)
    world.fleet.become("e", EndpointState.HEALTHY)
    reconciler.step(NOW + later)
    reconciler.step(NOW + later)
    assert deployed(world) == ("first", [], 1.0, None)
    world.fleet.become("e", EndpointState.HEALTHY, running=["front", "AllTraffic@1"])
    reconciler.step(NOW + later)
    found = world.endpoint("e")
    assert (found.status, found.running_counts) == (EndpointStatus.IN_SERVICE, {"AllTraffic": 1})
    assert reason in found.failure_reason


FRONT_AND_OLD = ("front", "AllTraffic@1")


@pytest.mark.parametrize("state", [EndpointState.UNHEALTHY, EndpointState.FAILED])
def test_the_way_back_does_not_wait_for_what_failed(world: World, state: EndpointState) -> None:
    reconciler = begin_canary(world)
    replica_fails(world, NOW)
    reconciler.step(NOW)
    reconciler.step(NOW)
    assert deployed(world) == ("first", ["new"], 1.0, None)

    def step(at: float, **states: EndpointState) -> tuple[RolloutStage | None, EndpointStatus]:
        seen = dict.fromkeys(FRONT_AND_OLD, EndpointState.HEALTHY) | {NEW_FLEET: state} | states
        world.fleet.seen["e"] = EndpointObservation(state, message="it crashes", states=seen)
        reconciler.step(at)
        return world.endpoint("e").stage, world.status("e")

    returning = (RolloutStage.RETURNING, EndpointStatus.ROLLING_BACK)
    assert step(NOW + 1) == returning, "Serve may not have begun yet"
    assert step(NOW + 60, front=EndpointState.DEPLOYING) == returning
    assert step(NOW + 60, front=EndpointState.UNHEALTHY) == returning
    assert step(NOW + 60) == (None, EndpointStatus.ROLLING_BACK)
    reconciler.step(NOW + 60)
    assert deployed(world) == ("first", [], 1.0, None)


def test_a_way_back_on_which_the_old_front_fails_has_failed(world: World) -> None:
    reconciler = begin_canary(world)
    replica_fails(world, NOW)
    reconciler.step(NOW)
    reconciler.step(NOW)
    states = dict.fromkeys(FRONT_AND_OLD, EndpointState.FAILED)
    world.fleet.seen["e"] = EndpointObservation(EndpointState.FAILED, message="no machine", states=states)
    reconciler.step(NOW + 60)
    found = world.endpoint("e")
    assert found.status is EndpointStatus.UPDATE_ROLLBACK_FAILED
    assert found.failure_reason == "the container ended Going back failed too: no machine"


def test_trouble_of_the_fleets_that_are_left_behind_undoes_nothing(world: World) -> None:
    reconciler = begin_canary(world)
    states = {"AllTraffic@1": EndpointState.UNHEALTHY, NEW_FLEET: EndpointState.HEALTHY}
    world.fleet.seen["e"] = EndpointObservation(EndpointState.UNHEALTHY, message="old", states=states)
    reconciler.step(NOW + 5)
    assert world.status("e") is EndpointStatus.UPDATING


def test_what_others_answered_or_long_ago_fires_no_alarm(world: World) -> None:
    reconciler = begin_canary(world)
    record_activity(world.database, answers("AllTraffic@1", 20, NOW + 50))
    reconciler.step(NOW + 50)
    record_activity(world.database, answers(NEW_FLEET, 20, NOW - 61))
    reconciler.step(NOW)
    assert world.status("e") is EndpointStatus.UPDATING


def test_other_weights_make_nothing_anew(world: World) -> None:
    reconciler = serve_first(world)
    with world.database.transaction() as connection:
        change = {"AllTraffic": {"weight": 0.5, "instance_count": 3}}
        hosting.move_endpoint(connection, "e", lambda record: transitions.change_weights(record, change, NOW))
    reconciler.step(NOW)
    last = world.fleet.deployed[-1]
    assert (last.generation, last.revision, world.fleet.beside) == (2, 1, [])
    assert (last.variants[0].weight, last.variants[0].replica_count) == (0.5, 3)


def test_what_an_update_left_over_is_taken_away_by_the_next_process(world: World) -> None:
    serve_first(world)
    world.fleet.become("e", EndpointState.HEALTHY, running=["front", "a@7"])
    world.reconciler().step(NOW)
    assert len(world.fleet.deployed) == 2
    world.fleet.become("e", EndpointState.HEALTHY)
    world.reconciler().step(NOW)
    assert len(world.fleet.deployed) == 2
