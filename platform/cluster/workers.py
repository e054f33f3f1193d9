"""Named detached actors; those that hold an instance type's resources are made again when they die by accident."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import ray
from ray.util import list_named_actors

from raymaker.actors.spec import Resources
from raymaker.platform.cluster.reporter import NAMESPACE

CONCURRENCY = 4


def worker_keys(kind: str) -> list[list[str]]:
    """The keys, as text, of every worker of a kind that lives, placed or not."""
    return [name.split("/")[1:] for name in list_named_actors() if name.startswith(f"{kind}/")]


def launch_worker(kind: str, key: Iterable[object], actor: type, needed: Resources, *arguments: object) -> Any:
    """Start a worker, or find the one that lives."""
    return detached(
        actor,
        _name(kind, key),
        CONCURRENCY,
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=needed.cpus,
        num_gpus=needed.gpus,
        memory=needed.memory_bytes or None,
    ).remote(*arguments)


def detached(actor: type, name: str, concurrency: int, **options: Any) -> Any:
    """A class as a named actor that outlives its maker: not made again, and without CPUs, unless options differ."""
    chosen: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, **options}
    return remote_class(actor).options(
        name=name, namespace=NAMESPACE, lifetime="detached", max_concurrency=concurrency, **chosen
    )


def find_worker(kind: str, key: Iterable[object]) -> Any:
    """Find a worker; None where it does not live."""
    return find_actor(_name(kind, key))


def find_actor(name: str, namespace: str = NAMESPACE) -> Any:
    """Find an actor by its name; None where it does not live, perhaps since it was listed."""
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None


@functools.cache
def remote_class(actor: type) -> Any:
    """A class as Ray starts it, made once for each class: the cluster keeps for good whatever is made of it."""
    return ray.remote(actor)


def _name(kind: str, key: Iterable[object]) -> str:
    return "/".join(map(str, (kind, *key)))
