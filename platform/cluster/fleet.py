"""The reconciler's `Fleet`, on Ray: supervisors are named detached actors, endpoints are Serve applications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.util import list_named_actors

from raymaker.actors.spec import Resources, TrainingSpec
from raymaker.platform.cluster.reporter import NAMESPACE, ControlReporter
from raymaker.platform.cluster.site import site_of
from raymaker.platform.cluster.supervisor_actor import SupervisorActor
from raymaker.platform.settings import Settings
from raymaker.serving import endpoint as serving_endpoint
from raymaker.serving.endpoint import EndpointObservation
from raymaker.serving.spec import EndpointSpec

PREFIX = "training/"
STOP_CONCURRENCY = 4


class RayFleet:
    """Starts and finds what runs on the cluster. Ray's own state is asked each time.

    All it remembers is which supervisors it has launched that Ray has not placed yet, since Ray does not count those.
    """

    def __init__(self, settings: Settings) -> None:
        self._site = site_of(settings)
        self._unplaced: dict[ray.ObjectRef[int], Resources] = {}

    def supervisors(self) -> frozenset[tuple[str, int]]:
        """Name every attempt that has a supervisor."""
        return frozenset(_attempt(name) for name in list_named_actors() if name.startswith(PREFIX))

    def free(self) -> Resources:
        """What Ray could give to new actors now, less what those that it has not placed yet will take."""
        if self._unplaced:
            placed, _ = ray.wait(list(self._unplaced), num_returns=len(self._unplaced), timeout=0)
            for answer in placed:
                del self._unplaced[answer]
        available = ray.available_resources()
        promised = self._unplaced.values()
        return Resources(
            cpus=available.get("CPU", 0.0) - sum(needed.cpus for needed in promised),
            memory_bytes=int(available.get("memory", 0.0)) - sum(needed.memory_bytes for needed in promised),
            gpus=available.get("GPU", 0.0) - sum(needed.gpus for needed in promised),
        )

    def launch(self, spec: TrainingSpec) -> None:
        """Start a supervisor that holds the instance type's resources while it lives."""
        needed = spec.instance_type.resources
        supervisor: Any = ray.remote(SupervisorActor).options(
            name=actor_name(spec.job_name, spec.attempt),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=STOP_CONCURRENCY,
            num_cpus=needed.cpus,
            num_gpus=needed.gpus,
            memory=needed.memory_bytes or None,
        )
        self._unplaced[supervisor.remote(spec, self._site).attempt.remote()] = needed

    def stop(self, attempt: tuple[str, int]) -> None:
        """Ask a supervisor to stop its job."""
        if (supervisor := self._find(attempt)) is not None:
            supervisor.stop.remote()

    def endpoints(self, names: list[str]) -> Mapping[str, EndpointObservation]:
        """Tell what each endpoint looks like from outside."""
        return serving_endpoint.observe(names)

    def deploy(self, spec: EndpointSpec) -> None:
        """Make an endpoint be as the spec says."""
        serving_endpoint.deploy(spec, self._site, ControlReporter())

    def remove_endpoint(self, name: str) -> None:
        """Take an endpoint away."""
        serving_endpoint.delete(name)

    def _find(self, attempt: tuple[str, int]) -> Any:
        try:
            return ray.get_actor(actor_name(*attempt), namespace=NAMESPACE)
        except ValueError:
            return None


def actor_name(job_name: str, attempt: int) -> str:
    """Name an attempt's supervisor on the cluster."""
    return f"{PREFIX}{job_name}/{attempt}"


def _attempt(name: str) -> tuple[str, int]:
    _, job_name, attempt = name.split("/")
    return job_name, int(attempt)
