"""What gangs claim of the cluster through Ray Train: room that no other gang may count on, kept by one actor of Ray's.

Ray Train's elastic gangs start on what that actor, the AutoscalingCoordinator, reserves for them: first come, first
served. It has no public face, so what is private to Ray here is here alone (decision 7).
"""

from __future__ import annotations

from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (  # noqa: TID251
    get_or_create_autoscaling_coordinator,
)
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

Attempt = tuple[str, int]


def keep_claims_here() -> None:
    """Have claims kept on this node, if they are not yet kept on another.

    The actor can never move: on the node of the first gang's supervisor, as Ray would have it, it would die with
    that node, and elastic gangs would wait for its answer for good.
    """
    get_or_create_autoscaling_coordinator()


def claim_as(attempt: Attempt, trainer: DataParallelTrainer) -> None:
    """Have a gang claim under its attempt's name, so that a supervisor that is made anew takes the claim over.

    Each run would else have a random name, and what a dead one claimed would be kept from all for three minutes.
    """
    object.__setattr__(trainer.train_run_context, "run_id", _run_id(attempt))


def withdraw(attempt: Attempt) -> None:
    """Give up what an attempt claimed, where it still claims anything."""
    get_or_create_autoscaling_coordinator().cancel_request.remote(f"train-{_run_id(attempt)}")


def _run_id(attempt: Attempt) -> str:
    name, number = attempt
    return f"{name}-{number}"
