"""Comparisons in the reconciler's loop: jobs that run nothing themselves follow the jobs of their algorithms."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy import Connection

from raymaker.platform.comparing import comparison
from raymaker.platform.comparing.algorithms import algorithms_of, child_name
from raymaker.platform.comparing.comparison import Candidate
from raymaker.platform.database import evaluations, training
from raymaker.platform.database.engine import Database
from raymaker.platform.evaluating.evaluations import EvaluationStatus, Trigger
from raymaker.platform.records import TrainingJobRecord

logger = logging.getLogger(__name__)


def follow_comparisons(database: Database, jobs: Sequence[TrainingJobRecord], now: float) -> None:
    """Say how each comparison stands, or end it. One that fails does not keep the others from their turn."""
    for job in jobs:
        try:
            with database.reading() as connection:
                if comparison.follow(job, find_candidates(connection, job), now) == job:
                    continue
            with database.transaction() as connection:
                candidates = find_candidates(connection, job)
                training.move_training_job(
                    connection,
                    job.name,
                    lambda record, found=candidates: comparison.follow(record, found, now),  # type: ignore[misc]
                )
        except Exception:
            logger.exception("could not follow the algorithms of %s; the next step tries again", job.name)


def find_candidates(connection: Connection, job: TrainingJobRecord) -> dict[str, Candidate]:
    """Find the jobs of a comparison's algorithms, and how their models were judged where that decides."""
    names = [algorithm["Name"] for algorithm in algorithms_of(job.request)]
    return {name: _find(connection, job, child_name(job.name, name)) for name in names}


def _find(connection: Connection, job: TrainingJobRecord, name: str) -> Candidate:
    record = training.find_training_job(connection, name)
    if record is None or "SelectionMetric" not in job.request["AlgorithmSpecification"]:
        return Candidate(record)
    of_model = [each for each in evaluations.list_evaluations(connection, name) if each.trigger is Trigger.END]
    completed = [each.metrics for each in of_model if each.status is EvaluationStatus.COMPLETED]
    is_judged = all(each.status.ended for each in of_model)
    return Candidate(record, completed[-1] if completed else {}, is_judged)
