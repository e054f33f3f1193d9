"""Machines of transform jobs on Ray: each a worker that holds its instance type's resources."""

from __future__ import annotations

from typing import Any

import ray

from raymaker.actors.site import Site
from raymaker.platform.cluster.workers import find_worker, launch_worker, worker_keys
from raymaker.platform.transforming.reconcile_transforms import MachineKey
from raymaker.serving.transform.spec import TransformSpec

KIND = "transform"


def transform_machines() -> frozenset[MachineKey]:
    """Name every machine that lives, placed or not."""
    return frozenset((job_name, int(attempt), int(index)) for job_name, attempt, index in worker_keys(KIND))


def launch_transform(spec: TransformSpec, site: Site) -> ray.ObjectRef[Any]:
    """Start a machine. Returns what is answered once Ray has placed it."""
    from raymaker.platform.cluster.transform_actor import TransformActor

    key, needed = (spec.job_name, spec.attempt, spec.machine_index), spec.instance_type.resources
    placed: ray.ObjectRef[Any] = launch_worker(KIND, key, TransformActor, needed, spec, site).attempt.remote()
    return placed


def stop_transform(key: MachineKey) -> None:
    """Ask a machine to stop, where it lives."""
    if (machine := find_worker(KIND, key)) is not None:
        machine.stop.remote()
