"""What one container of a training job is asked to run: command, environment, labels, neighbours. Starts nothing.

What it finds in /opt/ml is `contract.py`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raymaker.actors import contract
from raymaker.actors.algorithm import Algorithm
from raymaker.actors.contract import Seat
from raymaker.actors.errors import UnsupportedError
from raymaker.actors.gpus import own_gpus, share
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER
from raymaker.actors.site import Site
from raymaker.actors.spec import ContainerSpec, Mount, Network, TrainingSpec

LABEL_JOB = "raymaker.job"
LABEL_ATTEMPT = "raymaker.attempt"
LABEL_RANK = "raymaker.rank"
LABEL_REVISION = "raymaker.revision"
"""The revision of the job with which the container was started."""


@dataclass(frozen=True)
class Machine:
    """Where the container runs: the machine's surroundings, its driver, and the lease of whoever owns the container."""

    site: Site
    driver: str
    owner: str


def training_container(
    spec: TrainingSpec,
    seat: Seat,
    machine: Machine,
    algorithm: Algorithm,
    *,
    mounts: tuple[Mount, ...],
    hosts: Mapping[str, str],
) -> ContainerSpec:
    """Say what to run: `IMAGE train`, the contract's environment, its share of the instance type.

    `hosts` has the addresses of the job's containers on other machines. Raises UnsupportedError where the container
    could not reach those.
    """
    environment = contract.environment(spec, seat, s3_endpoint_url=machine.site.store.s3_endpoint_url)
    command = spec.arguments if spec.arguments is not None else ("train",)
    if spec.source is not None:
        environment = {**contract.toolkit_environment(spec, seat), "PYTHONPATH": contract.EXCHANGE, **environment}
        command = (*command, *contract.user_arguments(spec.hyperparameters))
    is_one_of_several = seat.place.containers_per_machine > 1
    return ContainerSpec(
        name=f"raymaker-{machine.site.tag}-{machine.owner}" + (f"-{seat.index}" if is_one_of_several else ""),
        image=algorithm.image,
        source_dir=algorithm.source_dir,
        command=command,
        entrypoint=spec.entrypoint,
        environment=environment,
        mounts=mounts,
        labels={
            LABEL_KIND: "training",
            LABEL_OWNER: machine.owner,
            LABEL_HOME: str(machine.site.home),
            LABEL_JOB: spec.job_name,
            LABEL_ATTEMPT: spec.label,
            LABEL_RANK: str(seat.rank),
            LABEL_REVISION: str(spec.revisions.number),
        },
        resources=spec.container_resources,
        network=_network(spec, machine, hosts),
        hostname=seat.host,
        **_neighbours(spec, seat, hosts),
    )


def container_gpus(spec: TrainingSpec, seat: Seat) -> tuple[str, ...]:
    """Which of the machine's GPUs the container sees."""
    return share(own_gpus(), seat.index, seat.place.containers_per_machine) if spec.instance_type.resources.gpus else ()


def _network(spec: TrainingSpec, machine: Machine, hosts: Mapping[str, str]) -> Network:
    """Say what the containers reach. Raises UnsupportedError where they could not reach those on other machines."""
    if spec.network is not Network.OPEN or not hosts or machine.driver != "docker":
        return spec.network
    if not machine.site.host_network:
        raise UnsupportedError(
            "the job's network is on and its instances are on several machines, whose containers do not reach each "
            "other: isolate the network (EnableNetworkIsolation; the exchange works without one), or let such jobs "
            "share their machines' network with RAYMAKER_HOST_NETWORK=true"
        )
    return Network.HOST


def _neighbours(spec: TrainingSpec, seat: Seat, hosts: Mapping[str, str]) -> dict[str, Any]:
    """Say whom the container finds by name, and which of the machine's GPUs are its own."""
    found: dict[str, Any] = {"gpu_ids": container_gpus(spec, seat)}
    if seat.place.world_size > 1 and spec.network is Network.OPEN:
        here = tuple(name for name in seat.place.hosts if name not in hosts)
        found |= {"group": f"{spec.job_name}-{spec.label}", "peers": here, "hosts": hosts}
    return found
