"""Machines of transform jobs on Ray: named detached actors that hold their instance type's resources."""

from __future__ import annotations

from typing import Any

import ray
from ray.util import list_named_actors

from raymaker.actors.site import Site
from raymaker.platform.cluster.reporter import NAMESPACE
from raymaker.platform.transforming.reconcile_transforms import MachineKey
from raymaker.serving.transform.spec import TransformSpec

PREFIX = "transform/"
CONCURRENCY = 4


def transform_machines() -> frozenset[MachineKey]:
    """Name every machine that lives, placed or not."""
    return frozenset(_key(name) for name in list_named_actors() if name.startswith(PREFIX))


def launch_transform(spec: TransformSpec, site: Site) -> ray.ObjectRef[Any]:
    """Start a machine, made again when it dies by accident. Returns what is answered once Ray has placed it."""
    from raymaker.platform.cluster.transform_actor import TransformActor

    needed = spec.instance_type.resources
    actor: Any = ray.remote(TransformActor).options(
        name=_name((spec.job_name, spec.attempt, spec.machine_index)),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=CONCURRENCY,
        num_cpus=needed.cpus,
        num_gpus=needed.gpus,
        memory=needed.memory_bytes or None,
    )
    placed: ray.ObjectRef[Any] = actor.remote(spec, site).attempt.remote()
    return placed


def stop_transform(key: MachineKey) -> None:
    """Ask a machine to stop, where it lives."""
    try:
        machine: Any = ray.get_actor(_name(key), namespace=NAMESPACE)
    except ValueError:
        return
    machine.stop.remote()


def _name(key: MachineKey) -> str:
    return PREFIX + "/".join(map(str, key))


def _key(name: str) -> MachineKey:
    _, job_name, attempt, machine_index = name.split("/")
    return job_name, int(attempt), int(machine_index)
