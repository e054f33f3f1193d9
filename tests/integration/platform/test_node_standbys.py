"""A process that has its node's janitor start a container: real cluster, real engine, and janitors that die."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import ray

from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.spec import ContainerSpec
from raymaker.platform.cluster.node_standbys import JANITOR, NodeStandbys
from raymaker.platform.cluster.workers import detached
from support.ray_nodes import ray_nodes


class DyingJanitor:
    """Dies when it has started what it was asked for, and before it could say so."""

    def __init__(self, home: Path) -> None:
        self._runtime = DockerRuntime(home)

    def ready(self) -> bool:
        return True

    def start_container(self, spec: ContainerSpec) -> str | None:
        self._runtime.start(spec)
        os._exit(1)


@pytest.fixture(scope="module")
def node_id() -> Iterator[str]:
    """The only node of a cluster."""
    with ray_nodes({"num_cpus": 1, "dashboard_agent_listen_port": 0}):
        yield ray.get_runtime_context().get_node_id()


def scoring(home: Path, image: str) -> ContainerSpec:
    labels = {LABEL_KIND: "scoring", LABEL_OWNER: "scoring-one", LABEL_HOME: str(home)}
    name = f"raymaker-test-{home.parent.name}-one"
    return ContainerSpec(name=name, image=image, command=("60",), entrypoint=("sleep",), labels=labels)


def test_without_a_janitor_nothing_waits(node_id: str, home: Path) -> None:
    assert node_id
    assert NodeStandbys(home).start(scoring(home, "none")) is None


def test_a_janitor_that_dies_meanwhile_leaves_no_container_that_nobody_knows_of(
    node_id: str, engine: docker.DockerClient, base_image: str, home: Path
) -> None:
    janitor: Any = detached(DyingJanitor, JANITOR + node_id, 1).remote(home)
    assert ray.get(janitor.ready.remote())
    spec = scoring(home, str(engine.images.get(base_image).id))
    assert NodeStandbys(home).start(spec) is None
    assert not DockerRuntime(home).owned({LABEL_HOME: str(home)})
    assert not engine.containers.list(all=True, filters={"name": spec.name})
