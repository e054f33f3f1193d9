"""Evaluations on Ray: each a worker that holds its instance type's resources."""

from __future__ import annotations

from typing import Any

import ray

from raymaker.actors.site import Site
from raymaker.platform.cluster.workers import launch_worker, stop_worker, worker_keys
from raymaker.platform.evaluating.reconcile_evaluations import EvaluatorKey
from raymaker.serving.evaluation.spec import EvaluationSpec

KIND = "evaluation"


def evaluators() -> frozenset[EvaluatorKey]:
    """Name every evaluation that lives, placed or not."""
    return frozenset((job_name, int(number)) for job_name, number in worker_keys(KIND))


def launch_evaluation(spec: EvaluationSpec, site: Site) -> ray.ObjectRef[Any]:
    """Start an evaluation. Returns what is answered once Ray has placed it."""
    from raymaker.platform.cluster.evaluator_actor import EvaluatorActor

    key, needed = (spec.job_name, spec.number), spec.instance_type.resources
    placed: ray.ObjectRef[Any] = launch_worker(KIND, key, EvaluatorActor, needed, spec, site).number.remote()
    return placed


def stop_evaluation(key: EvaluatorKey) -> None:
    """Ask an evaluation to end, where it lives."""
    stop_worker(KIND, key)
