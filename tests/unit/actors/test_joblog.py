"""Metric definitions on log lines."""

from __future__ import annotations

import re

import pytest

from raymaker.actors.joblog import compile_definitions, find_metrics
from raymaker.actors.runtime.base import LogLine
from raymaker.actors.spec import MetricDefinition

DEFINITIONS = compile_definitions(
    [MetricDefinition("loss", r"loss=([-+.\w]+)"), MetricDefinition("epoch", r"epoch=(\d+)")]
)


def found(text: str) -> list[tuple[str, float]]:
    return [(metric.name, metric.value) for metric in find_metrics(DEFINITIONS, [LogLine(1_500_000_000, text)])]


def test_each_definition_takes_its_number_from_a_line() -> None:
    assert found("epoch=3 loss=0.25") == [("loss", 0.25), ("epoch", 3.0)]


def test_scientific_notation_counts_and_text_that_is_no_number_is_passed_over() -> None:
    assert found("loss=1e-3") == [("loss", 0.001)]
    assert found("loss=unknown") == []
    assert found("nothing here") == []


def test_a_metric_has_the_time_of_its_line_in_seconds() -> None:
    (metric,) = find_metrics(DEFINITIONS, [LogLine(1_500_000_000, "loss=1")])
    assert metric.time == 1.5


def test_a_definition_without_a_group_finds_nothing_and_one_that_is_no_expression_is_refused() -> None:
    assert find_metrics(compile_definitions([MetricDefinition("x", "loss")]), [LogLine(1, "loss=1")]) == []
    with pytest.raises(re.error):
        compile_definitions([MetricDefinition("x", "(")])
