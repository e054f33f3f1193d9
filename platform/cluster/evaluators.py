"""Evaluators on Ray: each a worker that holds its instance type's resources."""

from __future__ import annotations

from typing import Any

import ray

from raymaker.actors.site import Site
from raymaker.platform.cluster.workers import find_worker, launch_worker, worker_keys
from raymaker.platform.evaluating.evaluators import EvaluatorKey
from raymaker.serving.evaluation.spec import EvaluationSpec

KIND = "evaluator"


def evaluators() -> frozenset[EvaluatorKey]:
    """Name every evaluator that lives, placed or not."""
    return frozenset((job_name, "/".join(type_name)) for job_name, *type_name in worker_keys(KIND))


def evaluate(spec: EvaluationSpec, site: Site) -> ray.ObjectRef[Any]:
    """Have a job's evaluator be at an evaluation. Returns what is answered once Ray has placed the evaluator."""
    from raymaker.platform.cluster.evaluator_actor import EvaluatorActor

    worker = launch_worker(KIND, spec.evaluator, EvaluatorActor, spec.instance_type.resources, site)
    placed: ray.ObjectRef[Any] = worker.evaluate.remote(spec)
    return placed


def rest_evaluator(key: EvaluatorKey) -> None:
    """Have an evaluator be at nothing, where it lives."""
    if (worker := find_worker(KIND, key)) is not None:
        worker.evaluate.remote(None)


def end_evaluator(key: EvaluatorKey) -> None:
    """Have an evaluator end, where it lives."""
    if (worker := find_worker(KIND, key)) is not None:
        worker.end.remote()
