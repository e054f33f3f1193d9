"""Which idle endpoints stay, resting, and which go to sleep."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymaker.actors.reports import Activity
from raymaker.platform import transitions
from raymaker.platform.database import hosting
from raymaker.platform.database.activity import record_activity
from raymaker.platform.database.engine import Database
from raymaker.platform.hosting.reconcile_sleep import SleepReconciler
from raymaker.platform.records import (
    Deployment,
    EndpointRecord,
    EndpointStatus,
    ResolvedContainer,
    ResolvedVariant,
    SleepStage,
)
from raymaker.serving.endpoint import EndpointObservation, EndpointState

IDLE_S, NOW = 60.0, 1000.0
SERVERLESS = {"VariantName": "v", "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2}}
HEALTHY = EndpointObservation(EndpointState.HEALTHY, {"front": 1})


class Cluster:
    """What is asked of the cluster."""

    def remove_endpoint(self, name: str) -> None:
        raise AssertionError(f"nobody said that {name} is to go")


@dataclasses.dataclass
class Night:
    database: Database
    reconciler: SleepReconciler

    def add(self, name: str, *, asked_before_s: float = IDLE_S) -> None:
        """Add an endpoint in service, which was asked so long ago."""
        desired = Deployment("c", (ResolvedVariant(SERVERLESS, "m", (ResolvedContainer("i"),)),))
        made = transitions.create_endpoint(name, f"arn:{name}", "0", desired, 1.0)
        with self.database.transaction() as connection:
            awake = dataclasses.replace(made, status=EndpointStatus.IN_SERVICE, deployed=desired)
            assert hosting.insert_endpoint(connection, awake)
        self.say(name, asked_before_s)

    def say(self, name: str, asked_before_s: float) -> None:
        record_activity(self.database, Activity(name, "r", NOW, 0, NOW - asked_before_s))

    def record(self, name: str) -> EndpointRecord:
        with self.database.reading() as connection:
            found = hosting.find_endpoint(connection, name)
        assert found is not None
        return found

    def stays(self, name: str, *, may_rest: bool = True) -> bool:
        """Whether it is still there after a look."""
        self.reconciler.lay_down(self.record(name), HEALTHY, IDLE_S, NOW, may_rest=may_rest)
        return self.record(name).sleep is None


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    database = Database(f"sqlite:///{tmp_path}/db")
    database.migrate()
    yield Night(database, SleepReconciler(database, Cluster(), 2))
    database.dispose()


def test_those_that_were_asked_last_rest_and_the_others_go_to_sleep(night: Night) -> None:
    for name, before_s in (("a", 90), ("b", 80), ("c", 70)):
        night.add(name, asked_before_s=before_s)
    assert [night.stays(name) for name in ("a", "b", "c")] == [True, True, True], "none knew of those after it"
    assert [night.stays(name) for name in ("a", "b", "c")] == [False, True, True]
    assert night.record("a").sleep is SleepStage.FALLING_ASLEEP


def test_one_that_is_asked_again_or_is_gone_takes_no_place(night: Night) -> None:
    for name, before_s in (("a", 90), ("b", 80), ("c", 70)):
        night.add(name, asked_before_s=before_s)
    assert [night.stays(name) for name in ("b", "c")] == [True, True]
    night.say("b", 1)
    assert [night.stays(name) for name in ("b", "a", "c")] == [True, True, True]
    night.say("b", 61)
    night.reconciler.forget(["a", "b"])
    assert [night.stays(name) for name in ("b", "a")] == [True, True]


def test_none_rests_while_somebody_waits_for_room_or_where_it_is_no_single_replica(night: Night) -> None:
    night.add("a")
    assert night.stays("a")
    night.reconciler.hear_of_room(NOW, jobs_wait=True, endpoints_lack=False)
    assert not night.stays("a")
    night.add("b")
    night.reconciler.hear_of_room(NOW, jobs_wait=False, endpoints_lack=False)
    assert not night.stays("b", may_rest=False)


def test_endpoints_that_only_start_send_none_to_sleep_but_those_that_find_no_room_do(night: Night) -> None:
    night.add("a")
    for now in (NOW, NOW + 14):
        night.reconciler.hear_of_room(now, jobs_wait=False, endpoints_lack=True)
        assert night.stays("a")
    night.reconciler.hear_of_room(NOW + 15, jobs_wait=False, endpoints_lack=False)
    night.reconciler.hear_of_room(NOW + 16, jobs_wait=False, endpoints_lack=True)
    assert night.stays("a"), "others start now"
    night.reconciler.hear_of_room(NOW + 31, jobs_wait=False, endpoints_lack=True)
    assert not night.stays("a")


def test_where_none_may_rest_all_go_to_sleep(night: Night) -> None:
    night.add("a")
    night.reconciler = SleepReconciler(night.database, Cluster(), 0)
    assert not night.stays("a")
