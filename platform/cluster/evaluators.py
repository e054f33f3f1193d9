"""Evaluations on Ray: named detached actors that hold their instance type's resources."""

from __future__ import annotations

from typing import Any

import ray
from ray.util import list_named_actors

from raymaker.actors.site import Site
from raymaker.platform.cluster.reporter import NAMESPACE
from raymaker.platform.evaluating.reconcile_evaluations import EvaluatorKey
from raymaker.serving.evaluation.spec import EvaluationSpec

PREFIX = "evaluation/"
CONCURRENCY = 4


def evaluators() -> frozenset[EvaluatorKey]:
    """Name every evaluation that lives, placed or not."""
    return frozenset(_key(name) for name in list_named_actors() if name.startswith(PREFIX))


def launch_evaluation(spec: EvaluationSpec, site: Site) -> ray.ObjectRef[Any]:
    """Start an evaluation, made again when it dies by accident. Returns what is answered once Ray has placed it."""
    from raymaker.platform.cluster.evaluator_actor import EvaluatorActor

    needed = spec.instance_type.resources
    actor: Any = ray.remote(EvaluatorActor).options(
        name=_name((spec.job_name, spec.number)),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=CONCURRENCY,
        num_cpus=needed.cpus,
        num_gpus=needed.gpus,
        memory=needed.memory_bytes or None,
    )
    placed: ray.ObjectRef[Any] = actor.remote(spec, site).number.remote()
    return placed


def stop_evaluation(key: EvaluatorKey) -> None:
    """Ask an evaluation to end, where it lives."""
    try:
        evaluator: Any = ray.get_actor(_name(key), namespace=NAMESPACE)
    except ValueError:
        return
    evaluator.stop.remote()


def _name(key: EvaluatorKey) -> str:
    return PREFIX + "/".join(map(str, key))


def _key(name: str) -> EvaluatorKey:
    _, job_name, number = name.split("/")
    return job_name, int(number)
