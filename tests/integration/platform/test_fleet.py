"""The fleet on a real Ray cluster of several nodes: what waits keeps its room, and every node has its janitor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from raymaker.actors.reports import ReportRefused
from raymaker.actors.spec import InstanceType, Resources, ScoringSpec, TrainingSpec
from raymaker.platform.cluster.control_actor import ControlActor
from raymaker.platform.cluster.fleet import RayFleet, actor_name
from raymaker.platform.cluster.frontend import RayCluster
from raymaker.platform.cluster.nodes import living_nodes
from raymaker.platform.cluster.reporter import CONTROL_NAME, NAMESPACE
from raymaker.platform.cluster.workers import find_actor
from raymaker.platform.database.engine import Database
from raymaker.platform.settings import Settings
from raymaker.serving.evaluation.spec import EvaluationData, EvaluationSpec, ProblemType
from support.ray_nodes import ray_nodes

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of this session's own, of 2 and 1 CPUs; this process is connected to them."""
    with ray_nodes({"num_cpus": 2, "dashboard_agent_listen_port": 0}, {"num_cpus": 1}) as nodes:
        yield nodes


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(home=home, driver="process")


def spec(name: str, count: int, cpus: float) -> TrainingSpec:
    kind = InstanceType("type", Resources(cpus))
    return TrainingSpec(name, f"arn:{name}", "here", 1, kind, "file:///nowhere", source=None, instance_count=count)


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def test_every_node_is_told_with_what_it_has(cluster: Cluster, settings: Settings) -> None:
    assert sorted(node.cpus for node in RayCluster(settings).nodes()) == [1, 2]
    assert all(node.memory_bytes > 0 for node in RayCluster(settings).nodes())


def test_a_gang_that_waits_for_its_machines_keeps_their_room_from_others(cluster: Cluster, settings: Settings) -> None:
    fleet = RayFleet(settings)
    before = wait_until(lambda: fleet.free() if fleet.free().cpus == 3 else None)
    fleet.launch(spec("gang", count=2, cpus=1.5))  # there is room in all, but no two nodes hold 1.5 each
    assert fleet.supervisors() == {("gang", 1)}
    assert fleet.free().cpus == before.cpus - 3
    fleet.launch(dataclasses.replace(spec("gang", count=2, cpus=1.5), start=1))
    assert fleet.free().cpus == before.cpus - 3, "what one attempt needs is counted once"
    ray.kill(find_actor(actor_name("gang", 1)))
    assert wait_until(lambda: fleet.free().cpus == before.cpus)


def test_a_supervisor_that_died_by_accident_still_keeps_its_gangs_room(cluster: Cluster, settings: Settings) -> None:
    fleet = RayFleet(settings)
    before = wait_until(lambda: fleet.free() if fleet.free().cpus == 3 else None)
    fleet.launch(spec("unlucky", count=2, cpus=1.5))
    supervisor = wait_until(lambda: find_actor(actor_name("unlucky", 1)))
    assert ray.get(supervisor.attempt.remote(), timeout=TIMEOUT_S) == 1
    ray.kill(supervisor, no_restart=False)
    assert ray.get(supervisor.attempt.options(max_task_retries=-1).remote(), timeout=TIMEOUT_S) == 1
    assert fleet.free().cpus == before.cpus - 3
    ray.kill(supervisor)
    assert wait_until(lambda: fleet.free().cpus == before.cpus)


class Refusing:
    """A control plane that wants no evaluation."""

    def call(self, method: str, job_name: str, number: int) -> int:
        assert method == "begin_evaluation"
        raise ReportRefused(f"evaluation {number} of {job_name} has ended")


def test_an_evaluator_stays_after_its_evaluation_and_gives_its_room_back_when_it_is_ended(
    cluster: Cluster, settings: Settings
) -> None:
    fleet = RayFleet(settings)
    before = wait_until(lambda: fleet.free() if fleet.free().cpus == 3 else None)
    control: Any = ray.remote(Refusing).options(name=CONTROL_NAME, namespace=NAMESPACE, num_cpus=0).remote()
    one = EvaluationSpec(
        "job",
        "arn:job",
        1,
        InstanceType("odd/type", Resources(1)),
        ScoringSpec(),
        EvaluationData("file:///nowhere"),
        ProblemType.REGRESSION,
        "file:///nowhere",
    )
    for number in (1, 1, 2):
        fleet.evaluate(dataclasses.replace(one, number=number))
    assert fleet.evaluators() == {("job", "odd/type")}
    assert wait_until(lambda: ray.available_resources().get("CPU") == before.cpus - 1), "there is one, and it is placed"
    fleet.rest_evaluator(("job", "odd/type"))
    fleet.end_evaluator(("job", "odd/type"))
    assert wait_until(lambda: not fleet.evaluators() and fleet.free().cpus == before.cpus)
    ray.kill(control)


def test_a_node_that_joins_later_gets_its_janitor(cluster: Cluster, settings: Settings) -> None:
    database = Database(settings.resolved_database_url)
    database.migrate()
    database.dispose()
    control: Any = ray.remote(ControlActor).options(num_cpus=0, max_concurrency=4).remote(settings)
    for node in living_nodes():
        wait_until(lambda node=node: find_actor(f"janitor/{node.id}"))
    known = set(living_nodes())
    joined = cluster.add_node(num_cpus=1)
    (new,) = wait_until(lambda: set(living_nodes()) - known)
    janitor = wait_until(lambda: find_actor(f"janitor/{new.id}"))
    assert ray.get(janitor.stay.remote(), timeout=TIMEOUT_S)
    ray.kill(control)
    cluster.remove_node(joined)
