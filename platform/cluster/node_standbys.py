"""How a process has a container that waits on its node become its own: those are kept by the node's janitor."""

from __future__ import annotations

import logging
from pathlib import Path

import ray
from ray.exceptions import RayError

from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.spec import ContainerSpec
from raymaker.platform.cluster.workers import find_actor

logger = logging.getLogger(__name__)

JANITOR = "janitor/"
"""What the names of janitors begin with; the node's id follows."""


class NodeStandbys:
    """The WaitingContainers of whatever node this is asked on. Holds no handle, so that it may travel to any."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def start(self, spec: ContainerSpec) -> str | None:
        """Have one that waits become this container. Returns its id, None where none fits, or it came to nothing."""
        janitor = find_actor(JANITOR + ray.get_runtime_context().get_node_id())
        if janitor is None:
            return None
        try:
            started: str | None = ray.get(janitor.start_container.remote(spec))
        except RayError as error:
            logger.warning("the janitor died while it started %s: %s", spec.name, error)
            runtime = DockerRuntime(self._home)
            for handle, _ in runtime.owned(spec.labels):  # nobody knows how far it came
                runtime.remove(handle)
            return None
        return started
