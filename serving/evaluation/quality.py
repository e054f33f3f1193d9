"""Quality metrics, computed by scikit-learn and SciPy: the one place that knows which there are. Pure.

A metric that cannot be told (no probabilities, one class only) is left out, unless it was asked for by name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raymaker.serving.evaluation.answers import Prediction
from raymaker.serving.evaluation.data import Label
from raymaker.serving.evaluation.errors import AnswerError
from raymaker.serving.evaluation.metric_names import CLASSIFICATION, COMMON, REGRESSION
from raymaker.serving.evaluation.spec import ProblemType

HISTOGRAM_BINS = 20
MOST_CLASSES = 50
"""Of so many classes a histogram tells how often each came."""
SMALLEST_CHANCE = 1e-15
"""A probability of 0 of what is true would make the loss infinite, whatever the others are."""


@dataclass(frozen=True)
class Histogram:
    """How often which outputs came: between `edges` (one more than counts), or of each of `classes`."""

    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quality:
    """The metrics of one evaluation, by name, and the distributions of the outputs and of the known results."""

    metrics: Mapping[str, float]
    outputs: Histogram
    labels: Histogram


@dataclass
class Results:
    """What was found for each record, in their order. `latencies_s` are of requests."""

    labels: list[Label] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)


def difference(label: Label, found: Prediction) -> float:
    """How far a result is from the known one: the distance of two numbers, or what probability the truth lacks."""
    if isinstance(label, float):
        return abs(float(found.value) - label)
    if found.probabilities:
        return 1.0 - found.probabilities.get(label, 0.0)
    return float(found.value != label)


def measure(
    results: Results, problem: ProblemType, wanted: Sequence[str] = (), *, positive_class: str | None = None
) -> Quality:
    """Compute the metrics that are `wanted`, or all. Raises AnswerError where a wanted one cannot be told."""
    if problem is ProblemType.REGRESSION:
        found, outputs, labels = _regression(results)
    else:
        found, outputs, labels = _classification(results, problem, positive_class)
    found |= _common(results)
    if missing := [name for name in wanted if name not in found]:
        raise AnswerError(
            f"Metrics: {', '.join(missing)} cannot be told of these answers: they need probabilities for each class, "
            "and records of more than one"
        )
    return Quality({name: found[name] for name in wanted or found}, outputs, labels)


def _common(results: Results) -> dict[str, float]:
    times_ms = np.array(results.latencies_s) * 1000
    found = {"latency_p50": float(np.percentile(times_ms, 50)), "latency_p99": float(np.percentile(times_ms, 99))}
    assert set(found) == set(COMMON)
    return found


def _regression(results: Results) -> tuple[dict[str, float], Histogram, Histogram]:
    from scipy import stats
    from sklearn import metrics

    labels, outputs = np.array(results.labels, dtype=float), _numbers(results.predictions)
    with np.errstate(over="ignore", invalid="ignore"):
        found = {
            "mae": float(metrics.mean_absolute_error(labels, outputs)),
            "mse": float(metrics.mean_squared_error(labels, outputs)),
            "rmse": float(metrics.root_mean_squared_error(labels, outputs)),
            "median_error": float(metrics.median_absolute_error(labels, outputs)),
            "output_mean": float(outputs.mean()),
            "output_std": float(outputs.std()),
            "output_skewness": _finite(stats.skew(outputs)) if outputs.std() > 0 else 0.0,
            "output_distance": float(stats.wasserstein_distance(outputs, labels)),
        }
        if len(labels) > 1 and labels.std() > 0:
            found["r2"] = float(metrics.r2_score(labels, outputs))
    edges = np.histogram_bin_edges(np.concatenate([labels, outputs]), HISTOGRAM_BINS)
    assert set(found) <= set(REGRESSION)
    return found, _histogram(outputs, edges), _histogram(labels, edges)


def _classification(
    results: Results, problem: ProblemType, positive_class: str | None
) -> tuple[dict[str, float], Histogram, Histogram]:
    from sklearn import metrics

    classes = [str(label) for label in results.labels], [str(each.value) for each in results.predictions]
    labels: list[Any]
    outputs: list[Any]
    labels, outputs = classes
    accuracy = float(metrics.accuracy_score(labels, outputs))
    found = {"accuracy": accuracy, "error_rate": 1.0 - accuracy}
    averaging: dict[str, Any] = {"average": "macro"}
    if problem is ProblemType.BINARY:
        positive = positive_class or _positive(results, labels, outputs)
        labels, outputs = _as_two(labels, positive), _as_two(outputs, positive)
        averaging = {"average": "binary", "pos_label": 1}
    ratios = metrics.precision_recall_fscore_support(labels, outputs, zero_division=0.0, **averaging)
    found |= dict(zip(("precision", "recall", "f1"), map(float, ratios[:3]), strict=True))
    if all(each.probabilities for each in results.predictions):
        found |= _from_probabilities(results, problem)
    found["output_distance"] = _total_variation(*classes)
    assert set(found) <= set(CLASSIFICATION)
    known = sorted({*classes[0], *classes[1]})[:MOST_CLASSES]
    return found, _class_histogram(classes[1], known), _class_histogram(classes[0], known)


def _from_probabilities(results: Results, problem: ProblemType) -> dict[str, float]:
    """The metrics that need a probability for each class."""
    from sklearn import metrics

    truths = [str(label) for label in results.labels]
    names = list(results.predictions[0].probabilities)
    chances = np.array([[each.probabilities.get(name, 0.0) for name in names] for each in results.predictions])
    of_truth = [each.probabilities.get(truth, 0.0) for each, truth in zip(results.predictions, truths, strict=True)]
    found = {
        "log_loss": float(-np.log(np.clip(of_truth, SMALLEST_CHANCE, 1.0)).mean()),
        "confidence": float(np.mean([each.confidence or 0.0 for each in results.predictions])),
    }
    if problem is ProblemType.BINARY and len(set(truths)) == 2:  # noqa: PLR2004 - two classes
        found["auc"] = float(metrics.roc_auc_score([truth == names[-1] for truth in truths], chances[:, -1]))
    elif problem is ProblemType.MULTICLASS and set(names) == set(truths):
        order = sorted(names)
        sorted_chances = chances[:, [names.index(name) for name in order]]
        total = sorted_chances.sum(axis=1, keepdims=True)
        if (total > 0).all():
            scores = sorted_chances / total
            found["auc"] = float(metrics.roc_auc_score(truths, scores, multi_class="ovr", labels=order))
    return found


def _positive(results: Results, labels: list[str], outputs: list[str]) -> str:
    """Which class is the positive one: the last of those with probabilities, else the last in order."""
    probabilities = results.predictions[0].probabilities
    return list(probabilities)[-1] if probabilities else max({*labels, *outputs}, key=_by_number)


def _as_two(values: list[str], positive: str) -> list[Any]:
    return [int(value == positive) for value in values]


def _by_number(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return math.inf, name


def _numbers(predictions: Sequence[Prediction]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float(each.value) for each in predictions])


def _total_variation(labels: Sequence[str], outputs: Sequence[str]) -> float:
    """How far two frequencies of classes are apart: 0 where they are the same, 1 where they share no class."""
    truth, told = Counter(labels), Counter(outputs)
    return sum(abs(truth[name] - told[name]) for name in {*truth, *told}) / (2 * len(labels))


def _histogram(values: np.ndarray[Any, Any], edges: np.ndarray[Any, Any]) -> Histogram:
    counts, _ = np.histogram(values, edges)
    return Histogram(tuple(map(int, counts)), edges=tuple(map(float, edges)))


def _class_histogram(values: Sequence[str], names: Sequence[str]) -> Histogram:
    counts = Counter(values)
    return Histogram(tuple(counts[name] for name in names), classes=tuple(names))


def _finite(value: Any) -> float:
    number = float(value)
    return number if math.isfinite(number) else 0.0
