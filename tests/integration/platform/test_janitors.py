"""Which nodes have a janitor, on a real cluster: of those that Ray may take away, the ones that are in use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.util.state
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state.exception import ServerUnavailable

from raymaker.actors.site import Site
from raymaker.actors.storage import StoreConfig
from raymaker.platform.cluster.janitors import Janitors
from raymaker.platform.cluster.node_standbys import JANITOR
from raymaker.platform.cluster.nodes import living_nodes
from raymaker.platform.cluster.workers import detached, find_actor
from support.ray_nodes import ray_nodes

TIMEOUT_S = 60.0
NODE = {"num_cpus": 1, "dashboard_agent_listen_port": 0}


class Worker:
    """Somebody who works on a node."""

    def ready(self) -> bool:
        return True


class Nodes:
    """The janitors of a cluster of two, looked after by a clock that goes as often as it is asked."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._now = 0.0
        (self.head,) = (node.id for node in living_nodes() if node.is_head)
        (self.added,) = (node.id for node in living_nodes() if not node.is_head)

    def look_after(self, *, may_leave: bool) -> None:
        self.janitors = Janitors(self._site, may_leave=may_leave)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen in time: {what}"
            self.step()
            time.sleep(0.2)

    def step(self) -> None:
        self._now += 100
        self.janitors.step(self._now)

    def has_janitor(self, node: str) -> bool:
        """Whether one answers there."""
        janitor = find_actor(JANITOR + node)
        return janitor is not None and bool(ray.get(janitor.stay.remote(), timeout=TIMEOUT_S))

    def has_none(self, node: str) -> bool:
        return find_actor(JANITOR + node) is None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_nodes({**NODE, "include_dashboard": True}, NODE) as made:
        yield made


@pytest.fixture
def site(home: Path) -> Site:
    return Site(home, "process", StoreConfig(), "no-image", reap_after_s=1)


@pytest.fixture
def nodes(cluster: Cluster, site: Site) -> Iterator[Nodes]:
    assert cluster.worker_nodes
    yield Nodes(site)
    for node in living_nodes():
        if (janitor := find_actor(JANITOR + node.id)) is not None:
            ray.kill(janitor)


def test_a_janitor_leaves_a_node_that_nobody_uses_and_comes_again(nodes: Nodes, site: Site) -> None:
    left = site.jobs / "job" / "1"
    nodes.look_after(may_leave=False)
    nodes.until(lambda: nodes.has_janitor(nodes.head) and nodes.has_janitor(nodes.added), "each has its own")
    left.mkdir(parents=True)
    nodes.look_after(may_leave=True)
    nodes.until(lambda: nodes.has_none(nodes.added), "that of the node nobody uses leaves")
    assert not left.exists(), "not before everything is removed"
    assert nodes.has_janitor(nodes.head)
    there = NodeAffinitySchedulingStrategy(nodes.added, soft=False)
    worker: Any = detached(Worker, "worker", 1, scheduling_strategy=there).remote()
    assert ray.get(worker.ready.remote(), timeout=TIMEOUT_S)
    nodes.until(lambda: nodes.has_janitor(nodes.added), "one comes with the first actor")
    ray.kill(worker)
    nodes.until(lambda: nodes.has_none(nodes.added), "and leaves after it")


def test_where_ray_does_not_list_its_actors_janitors_stay(
    nodes: Nodes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ServerUnavailable("there is no dashboard")

    monkeypatch.setattr(ray.util.state, "list_actors", refuse)
    nodes.look_after(may_leave=True)
    nodes.until(lambda: nodes.has_janitor(nodes.added), "it has its own")
    nodes.until(lambda: bool(caplog.records), "it is told")
    for _ in range(3):
        nodes.step()
        assert nodes.has_janitor(nodes.added), "it stays"
    (told,) = (record.getMessage() for record in caplog.records)
    assert "no janitor leaves" in told
    assert "there is no dashboard" in told
