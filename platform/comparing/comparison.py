"""Jobs whose algorithms train side by side: how such a job stands, from how the jobs of its algorithms do. Pure.

It runs nothing itself: it is in progress until all of those have ended, and then has the model of the best of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raymaker.actors.reports import Outcome, shorten
from raymaker.platform import transitions
from raymaker.platform.comparing.algorithms import algorithms_of, resolve
from raymaker.platform.phases import enter
from raymaker.platform.records import SecondaryStatus, TrainingJobRecord, TrainingJobStatus
from raymaker.serving.evaluation.metric_names import is_more_better


@dataclass(frozen=True)
class Candidate:
    """The job of one algorithm. `record` is None where it was deleted; `metrics` are those of its model's evaluation.

    `is_judged` says that no evaluation of its model is under way any more.
    """

    record: TrainingJobRecord | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    is_judged: bool = True

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes about it any more."""
        return self.record is None or (self.record.status.ended and self.is_judged)


def request_stop(record: TrainingJobRecord, now: float) -> TrainingJobRecord:
    """Ask a comparison to stop: it ends when the jobs of its algorithms have. Asking twice changes nothing."""
    if record.status is TrainingJobStatus.STOPPING:
        return record
    asked = dataclasses.replace(record, stop_requested_at=now, status=TrainingJobStatus.STOPPING)
    return enter(asked, SecondaryStatus.STOPPING, "Stopping the jobs of its algorithms", now)


def follow(record: TrainingJobRecord, candidates: Mapping[str, Candidate], now: float) -> TrainingJobRecord:
    """Say how a comparison stands, or end it. `candidates` are by the algorithms' names."""
    if record.status.ended:
        return record
    if not all(candidate.has_ended for candidate in candidates.values()):
        if record.status is TrainingJobStatus.STOPPING:
            return record
        return enter(record, SecondaryStatus.TRAINING, _describe(candidates), now)
    return _end(record, candidates, now)


def _end(record: TrainingJobRecord, candidates: Mapping[str, Candidate], now: float) -> TrainingJobRecord:
    metric = record.request["AlgorithmSpecification"].get("SelectionMetric")
    best = _best(candidates, metric)
    if best is None:
        if record.status is TrainingJobStatus.STOPPING:
            return transitions.end(record, Outcome.STOPPED, "Training job stopped", now)
        failure = shorten(f"AlgorithmError: no algorithm left a model: {_reasons(candidates)}")
        failed = dataclasses.replace(record, failure_reason=failure)
        return transitions.end(failed, Outcome.FAILED, "Training job failed", now)
    winner = candidates[best].record
    assert winner is not None
    algorithm = next(each for each in algorithms_of(record.request) if each["Name"] == best)
    times = [each.record for each in candidates.values() if each.record is not None]
    chosen = dataclasses.replace(
        record,
        request={**resolve(record.request, algorithm), **_own_places(winner)},
        model_uri=winner.model_uri,
        image_digest=winner.image_digest,
        started_at=min((each.started_at for each in times if each.started_at is not None), default=None),
        ended_at=max((each.ended_at for each in times if each.ended_at is not None), default=None),
    )
    stopped = record.status is TrainingJobStatus.STOPPING
    outcome = Outcome.STOPPED if stopped else Outcome.COMPLETED
    return transitions.end(chosen, outcome, _verdict(best, candidates, metric), now)


def _own_places(winner: TrainingJobRecord) -> Mapping[str, Any]:
    """Where the winner keeps what other jobs of the comparison keep elsewhere."""
    return {"CheckpointConfig": winner.request["CheckpointConfig"]} if "CheckpointConfig" in winner.request else {}


def _best(candidates: Mapping[str, Candidate], metric: str | None) -> str | None:
    """The algorithm with the best model, of equals the first; those that were not judged come last."""
    with_model = {name: each for name, each in candidates.items() if each.record is not None and each.record.has_model}
    if not with_model:
        return None
    sign = 1.0 if metric is None or is_more_better(metric) else -1.0

    def rank(name: str) -> tuple[bool, float]:
        value = with_model[name].metrics.get(metric) if metric is not None else None
        return value is not None, sign * value if value is not None else 0.0

    return max(with_model, key=rank)


def _verdict(best: str, candidates: Mapping[str, Candidate], metric: str | None) -> str:
    if metric is None:
        return f"The model is that of {best}, the first algorithm that left one"
    told = [f"{name} {each.metrics[metric]:.4g}" for name, each in candidates.items() if metric in each.metrics]
    return f"The model is that of {best}, the best by {metric}: {', '.join(told) or 'none was judged'}"


def _describe(candidates: Mapping[str, Candidate]) -> str:
    states = [f"{name} is {_state(candidate)}" for name, candidate in candidates.items()]
    return f"{len(candidates)} algorithms train side by side: {', '.join(states)}"


def _state(candidate: Candidate) -> str:
    if candidate.record is None:
        return "deleted"
    return str(candidate.record.secondary) if candidate.is_judged else "being judged"


def _reasons(candidates: Mapping[str, Candidate]) -> str:
    return "; ".join(
        f"{name}: {each.record.failure_reason or each.record.status if each.record is not None else 'it was deleted'}"
        for name, each in candidates.items()
    )
