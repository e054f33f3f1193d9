"""Answers of scoring containers, as ordinary servers write them, read as one result for each record."""

from __future__ import annotations

import pytest

from raymaker.serving.evaluation.answers import Prediction, read_answer
from raymaker.serving.evaluation.errors import AnswerError
from raymaker.serving.evaluation.spec import AnswerShape, ProblemType

BINARY, MULTICLASS, REGRESSION = ProblemType.BINARY, ProblemType.MULTICLASS, ProblemType.REGRESSION
CSV, JSON = "text/csv; charset=utf-8", "application/json"
PLAIN = AnswerShape()


@pytest.mark.parametrize(
    ("body", "content_type", "problem", "values"),
    [
        (b"3\n7\n", CSV, MULTICLASS, ["3", "7"]),
        (b"1.5\n-2\n", CSV, REGRESSION, [1.5, -2.0]),
        (b"3.0\n7.0\n", "text/plain", MULTICLASS, ["3", "7"]),
        (b"[3, 7]", JSON, MULTICLASS, ["3", "7"]),
        (b'{"predictions": [3, 7]}', JSON, MULTICLASS, ["3", "7"]),
        (b'{"predictions": [[1.5], [2.5]]}', JSON, REGRESSION, [1.5, 2.5]),
        (b'"cat"\n"dog"\n', "application/jsonlines", MULTICLASS, ["cat", "dog"]),
        (b"0.2,0.8\n0.9,0.1\n", CSV, MULTICLASS, ["1", "0"]),
        (b"[[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]]", JSON, MULTICLASS, ["1", "0"]),
        (b"0.7\n0.2\n", CSV, BINARY, ["1", "0"]),
        (b"[0.5, 0.4999]", JSON, BINARY, ["1", "0"]),
        (b"1\n0\n", CSV, BINARY, ["1", "0"]),
    ],
)
def test_results_are_found_where_servers_put_them(
    body: bytes, content_type: str, problem: ProblemType, values: list[str | float]
) -> None:
    assert [each.value for each in read_answer(body, content_type, 2, problem, PLAIN)] == values


def test_one_record_may_be_answered_with_its_result_alone() -> None:
    assert read_answer(b"7", JSON, 1, MULTICLASS, PLAIN) == [Prediction("7", {})]
    assert read_answer(b"[0.25, 0.75]", JSON, 1, MULTICLASS, PLAIN) == [Prediction("1", {"0": 0.25, "1": 0.75})]
    assert read_answer(b'{"score": 0.9}', JSON, 1, BINARY, AnswerShape(probability="score"))[0].value == "1"


def test_probabilities_come_with_their_classes_and_a_confidence() -> None:
    shape = AnswerShape(inference="label", probability="p", classes=("cat", "dog"))
    body = b'{"predictions": [{"label": "dog", "p": [0.3, 0.7]}, {"label": "cat", "p": [0.6, 0.4]}]}'
    found = read_answer(body, JSON, 2, MULTICLASS, shape)
    assert [(each.value, each.confidence) for each in found] == [("dog", 0.7), ("cat", 0.6)]
    assert Prediction("cat", {}).confidence is None


def test_a_binary_probability_is_that_of_the_positive_class_from_its_threshold_on() -> None:
    shape = AnswerShape(threshold=0.8, classes=("ill", "well"), positive_class="ill")
    found = read_answer(b"0.79\n0.8\n", CSV, 2, BINARY, shape)
    assert [each.value for each in found] == ["well", "ill"]
    assert found[0].probabilities == {"well": pytest.approx(0.21), "ill": 0.79}
    both = read_answer(b"0.9,0.1\n0.2,0.8\n", CSV, 2, BINARY, shape)
    assert [(each.value, list(each.probabilities)) for each in both] == [
        ("ill", ["well", "ill"]),
        ("well", ["well", "ill"]),
    ]


def test_columns_of_csv_are_told_by_number() -> None:
    shape = AnswerShape(inference="0", probability="-1")
    found = read_answer(b"1,x,0.7\n0,y,0.1\n", CSV, 2, BINARY, shape)
    assert [(each.value, each.probabilities["1"]) for each in found] == [("1", 0.7), ("0", 0.1)]


@pytest.mark.parametrize(
    ("body", "content_type", "problem", "shape", "message"),
    [
        (b"1\n", CSV, MULTICLASS, PLAIN, "answered 2 records with 1 results"),
        (b"1\n2\n3\n", CSV, MULTICLASS, PLAIN, "answered 2 records with 3 results"),
        (b"", CSV, MULTICLASS, PLAIN, "answered 2 records with 0 results"),
        (b"<html>", JSON, MULTICLASS, PLAIN, "is no JSON: b'<html>'"),
        (b"\xff\xfe", CSV, MULTICLASS, PLAIN, "is no text"),
        (b"nan\n1\n", CSV, REGRESSION, PLAIN, "result is nan"),
        (b"[Infinity, 1]", JSON, REGRESSION, PLAIN, "result is inf"),
        (b"high\nlow\n", CSV, REGRESSION, PLAIN, "result 'high' is no number"),
        (b"1,2\n3,4\n", CSV, REGRESSION, PLAIN, "no single result"),
        (b"1.5,0.1\n0.2,0.8\n", CSV, MULTICLASS, PLAIN, "1.5 is no probability"),
        (b"[null, 1]", JSON, MULTICLASS, PLAIN, "None is no single result"),
        (b'[{"a": 1}, {"a": 2}]', JSON, MULTICLASS, PLAIN, "objects with a: say with InferenceAttribute"),
        (b'[{"a": 1}, {"b": 2}]', JSON, MULTICLASS, AnswerShape(inference="a"), "InferenceAttribute a is not in"),
        (b"1\n2\n", CSV, MULTICLASS, AnswerShape(inference="3"), "InferenceAttribute 3 is not in"),
        (
            b"0.1,0.9\n0.5,0.5\n",
            CSV,
            MULTICLASS,
            AnswerShape(classes=("a", "b", "c")),
            "2 probabilities, and Classes names 3",
        ),
        (b"0.1\n0.9\n", CSV, MULTICLASS, AnswerShape(probability="0"), "is no list of a probability for each class"),
    ],
)
def test_garbage_is_told_as_what_it_is(
    body: bytes, content_type: str, problem: ProblemType, shape: AnswerShape, message: str
) -> None:
    with pytest.raises(AnswerError, match=message):
        read_answer(body, content_type, 2, problem, shape)
