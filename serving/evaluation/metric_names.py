"""The metrics that there are, and which way is better. Pure, and imports nothing: requests are checked against it."""

from __future__ import annotations

PREFIX = "evaluation:"
"""Goes before a metric's name among the metrics of its job."""

COMMON = {"latency_p50": False, "latency_p99": False}
"""Of any model. Milliseconds that a request took, of all those of the evaluation."""
CLASSIFICATION = {
    "accuracy": True,
    "error_rate": False,
    "precision": True,
    "recall": True,
    "f1": True,
    "log_loss": False,
    "auc": True,
    "confidence": True,
    "output_distance": False,
}
"""By name: whether more is better. Of several classes precision, recall and f1 are means over the classes."""
REGRESSION = {
    "mae": False,
    "mse": False,
    "rmse": False,
    "median_error": False,
    "r2": True,
    "output_mean": True,
    "output_std": True,
    "output_skewness": True,
    "output_distance": False,
}
"""The same of numbers. Moments of the outputs are neither good nor bad; they are there to be watched."""


def known_metrics(problem: str) -> dict[str, bool]:
    """The metrics of a problem type, each with whether more is better."""
    return {**(REGRESSION if problem == "Regression" else CLASSIFICATION), **COMMON}


def is_more_better(metric: str) -> bool:
    """Whether more is better; of a metric that is not known, which its user named, it is."""
    return {**REGRESSION, **CLASSIFICATION, **COMMON}.get(metric, True)
