"""Quality metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from raymaker.serving.evaluation.answers import Prediction
from raymaker.serving.evaluation.errors import AnswerError
from raymaker.serving.evaluation.metric_names import is_more_better, known_metrics
from raymaker.serving.evaluation.quality import Results, difference, measure
from raymaker.serving.evaluation.spec import ProblemType

BINARY, MULTICLASS, REGRESSION = ProblemType.BINARY, ProblemType.MULTICLASS, ProblemType.REGRESSION


def results(
    labels: list[str | float], outputs: list[str | float], chances: list[dict[str, float]] | None = None
) -> Results:
    found = [Prediction(output, chances[at] if chances else {}) for at, output in enumerate(outputs)]
    return Results(labels, found, [0.001, 0.003])


def test_a_regression() -> None:
    quality = measure(results([1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 2.0, 4.0]), REGRESSION)
    assert quality.metrics["mae"] == pytest.approx(0.375)
    assert quality.metrics["mse"] == pytest.approx(0.3125)
    assert quality.metrics["rmse"] == pytest.approx(math.sqrt(0.3125))
    assert quality.metrics["median_error"] == pytest.approx(0.25)
    assert quality.metrics["r2"] == pytest.approx(1 - 1.25 / 5)
    assert quality.metrics["output_mean"] == pytest.approx(2.375)
    assert quality.metrics["output_distance"] == pytest.approx(0.125)
    assert quality.metrics["latency_p50"] == pytest.approx(2.0)
    assert sum(quality.outputs.counts) == sum(quality.labels.counts) == 4
    assert len(quality.outputs.edges) == len(quality.outputs.counts) + 1
    assert quality.outputs.edges == quality.labels.edges


def test_one_record_or_one_value_has_no_share_of_its_spread() -> None:
    quality = measure(results([2.0], [2.0]), REGRESSION)
    assert "r2" not in quality.metrics
    assert all(map(math.isfinite, quality.metrics.values()))


def test_a_classifier_that_tells_classes_only() -> None:
    quality = measure(results(["a", "a", "b", "c"], ["a", "b", "b", "b"]), MULTICLASS)
    assert quality.metrics["accuracy"] == pytest.approx(0.5)
    assert quality.metrics["error_rate"] == pytest.approx(0.5)
    assert quality.metrics["precision"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert quality.metrics["recall"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert quality.metrics["output_distance"] == pytest.approx(0.5)
    assert not {"log_loss", "auc", "confidence"} & set(quality.metrics)
    assert (quality.outputs.classes, quality.outputs.counts) == (("a", "b", "c"), (1, 3, 0))


def test_probabilities_give_more() -> None:
    chances = [{"0": 0.9, "1": 0.1}, {"0": 0.6, "1": 0.4}, {"0": 0.3, "1": 0.7}, {"0": 0.0, "1": 1.0}]
    quality = measure(results(["0", "1", "1", "1"], ["0", "0", "1", "1"], chances), BINARY)
    assert quality.metrics["log_loss"] == pytest.approx(-sum(map(math.log, (0.9, 0.4, 0.7, 1.0))) / 4)
    assert quality.metrics["auc"] == pytest.approx(1.0)
    assert quality.metrics["confidence"] == pytest.approx((0.9 + 0.6 + 0.7 + 1.0) / 4)
    assert quality.metrics["precision"] == pytest.approx(1.0)
    assert quality.metrics["recall"] == pytest.approx(2 / 3)


def test_the_positive_class_is_the_one_that_is_named() -> None:
    found = results(["ill", "ill", "well"], ["ill", "well", "well"])
    assert measure(found, BINARY, positive_class="ill").metrics["precision"] == pytest.approx(1.0)
    assert measure(found, BINARY, positive_class="well").metrics["precision"] == pytest.approx(0.5)


def test_several_classes_have_an_area_too() -> None:
    chances = [{"a": 0.8, "b": 0.1, "c": 0.1}, {"a": 0.1, "b": 0.7, "c": 0.2}, {"a": 0.2, "b": 0.2, "c": 0.6}]
    assert measure(results(["a", "b", "c"], ["a", "b", "c"], chances), MULTICLASS).metrics["auc"] == pytest.approx(1.0)
    assert "auc" not in measure(results(["a", "b", "b"], ["a", "b", "c"], chances), MULTICLASS).metrics


def test_only_what_is_wanted_is_told_and_what_cannot_be_had_is_an_error() -> None:
    found = results(["a", "b"], ["a", "b"])
    assert measure(found, MULTICLASS, ["accuracy", "latency_p99"]).metrics.keys() == {"accuracy", "latency_p99"}
    with pytest.raises(AnswerError, match="Metrics: auc, log_loss cannot be told"):
        measure(found, MULTICLASS, ["auc", "log_loss"])


def test_every_metric_is_known_with_its_better_side() -> None:
    assert set(measure(results([1.0, 2.0], [1.0, 3.0]), REGRESSION).metrics) == set(known_metrics("Regression"))
    chances = [{"0": 0.9, "1": 0.1}, {"0": 0.2, "1": 0.8}]
    told = measure(results(["0", "1"], ["0", "1"], chances), BINARY).metrics
    assert set(told) == set(known_metrics("BinaryClassification"))
    assert (is_more_better("accuracy"), is_more_better("rmse"), is_more_better("my_own")) == (True, False, True)


@pytest.mark.parametrize(
    ("label", "found", "far"),
    [
        (1.0, Prediction(3.5, {}), 2.5),
        ("a", Prediction("a", {}), 0.0),
        ("a", Prediction("b", {}), 1.0),
        ("a", Prediction("a", {"a": 0.75, "b": 0.25}), 0.25),
        ("c", Prediction("a", {"a": 0.75, "b": 0.25}), 1.0),
    ],
)
def test_how_far_a_result_is_off(label: str | float, found: Prediction, far: float) -> None:
    assert difference(label, found) == pytest.approx(far)
