"""What a scoring container answered, read as one result for each record. Pure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jmespath

from raymaker.serving.evaluation.data import label_text
from raymaker.serving.evaluation.errors import AnswerError
from raymaker.serving.evaluation.spec import AnswerShape, ProblemType

SHOWN_CHARS = 200
LISTS = ("predictions", "outputs", "results")
"""Under these names ordinary servers answer with a list of results."""


@dataclass(frozen=True)
class Prediction:
    """The model's result for one record: a class as text, or a number.

    `probabilities` are by class, empty where the model tells none.
    """

    value: str | float
    probabilities: dict[str, float]

    @property
    def confidence(self) -> float | None:
        """How sure the model is of its result."""
        return self.probabilities.get(str(self.value)) if self.probabilities else None


def read_answer(
    body: bytes, content_type: str, count: int, problem: ProblemType, shape: AnswerShape
) -> list[Prediction]:
    """Read the answer to `count` records. Raises AnswerError where it is not one result for each."""
    results = _split(body, content_type, count)
    if len(results) != count:
        raise AnswerError(
            f"the scoring container answered {count} records with {len(results)} results, and each needs one: "
            f"{_show(body)}"
        )
    return [_predict(result, problem, shape) for result in results]


def _split(body: bytes, content_type: str, count: int) -> list[Any]:
    """Take an answer apart: rows of CSV as lists, documents of JSON as Python has them."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise AnswerError(f"the scoring container's answer is no text: {_show(body)}") from error
    plain = content_type.partition(";")[0].strip().lower()
    if "json" not in plain:
        return [[field.strip() for field in row] for row in csv.reader(io.StringIO(text)) if row]
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return _split_lines(text, body)
    if isinstance(document, dict):
        found = next((document[name] for name in LISTS if isinstance(document.get(name), list)), None)
        return [document] if found is None else found
    return document if isinstance(document, list) and not (count == 1 and len(document) != 1) else [document]


def _split_lines(text: str, body: bytes) -> list[Any]:
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"the scoring container's answer is no JSON: {_show(body)}") from error


def _predict(result: Any, problem: ProblemType, shape: AnswerShape) -> Prediction:
    told = _pick(result, shape.inference, "InferenceAttribute") if shape.inference is not None else None
    chances = _pick(result, shape.probability, "ProbabilityAttribute") if shape.probability is not None else None
    if told is None and chances is None:
        told, chances = _guess(result, problem)
    if problem is ProblemType.REGRESSION:
        return Prediction(_number(told, "result"), {})
    if chances is None:
        return Prediction(label_text(_single(told)), {})
    probabilities = _probabilities(chances, problem, shape)
    if told is not None:
        return Prediction(label_text(_single(told)), probabilities)
    if problem is ProblemType.BINARY and len(probabilities) == 2:  # noqa: PLR2004 - two classes
        negative, positive = probabilities
        return Prediction(positive if probabilities[positive] >= shape.threshold else negative, probabilities)
    return Prediction(max(probabilities, key=probabilities.__getitem__), probabilities)


def _guess(result: Any, problem: ProblemType) -> tuple[Any, Any]:
    """Tell result and probabilities apart where the request does not: several numbers are probabilities."""
    if isinstance(result, dict):
        raise AnswerError(
            f"the scoring container's results are objects with {', '.join(map(str, list(result)[:10]))}: say with "
            "InferenceAttribute or ProbabilityAttribute where the result is"
        )
    if isinstance(result, list) and len(result) > 1 and problem is not ProblemType.REGRESSION:
        return None, result
    single = _single(result)
    if problem is ProblemType.BINARY and _is_fraction(single):
        return None, single
    return single, None


def _pick(result: Any, where: str, field: str) -> Any:
    """Take a column of CSV by its number, or a field of JSON by its path."""
    found = None
    if isinstance(result, list):
        try:
            found = result[int(where)]
        except (ValueError, IndexError):
            found = None
    elif isinstance(result, dict):
        found = jmespath.search(where, result)
    if found is None:
        raise AnswerError(f"{field} {where} is not in the scoring container's result {_show(result)}")
    return found


def _probabilities(chances: Any, problem: ProblemType, shape: AnswerShape) -> dict[str, float]:
    """Read the probability of each class; of a single one, that of the positive class."""
    if not isinstance(chances, list):
        if problem is not ProblemType.BINARY:
            raise AnswerError(f"{_show(chances)} is no list of a probability for each class")
        positive = shape.positive_class or (shape.classes[-1] if shape.classes else "1")
        negative = next((name for name in shape.classes if name != positive), "0")
        chance = _chance(chances)
        return {negative: 1.0 - chance, positive: chance}
    names = shape.classes or tuple(str(index) for index in range(len(chances)))
    if len(names) != len(chances):
        raise AnswerError(
            f"the scoring container told {len(chances)} probabilities, and Classes names {len(names)}: {_show(chances)}"
        )
    found = {name: _chance(chance) for name, chance in zip(names, chances, strict=True)}
    if shape.positive_class in found and problem is ProblemType.BINARY:
        found[shape.positive_class] = found.pop(shape.positive_class)  # the positive class comes last
    return found


def _chance(value: Any) -> float:
    number = _number(value, "probability")
    if not 0.0 <= number <= 1.0:
        raise AnswerError(
            f"{number:g} is no probability. Where the scoring container answers with scores, have it answer with the "
            "class, or name the probabilities with ProbabilityAttribute"
        )
    return number


def _number(value: Any, what: str) -> float:
    try:
        number = float(_single(value))
    except (TypeError, ValueError):
        raise AnswerError(f"the scoring container's {what} {_show(value)} is no number") from None
    if not math.isfinite(number):
        raise AnswerError(f"the scoring container's {what} is {number}: a model that has gone wrong, or its input has")
    return number


def _single(value: Any) -> Any:
    """Take a value out of lists of one."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (list, dict)) or value is None:
        raise AnswerError(f"{_show(value)} is no single result")
    return value


def _is_fraction(value: Any) -> bool:
    """Tell whether a value lies between 0 and 1 and is written as a fraction: a probability, not a class."""
    if isinstance(value, str):
        try:
            return "." in value and 0.0 <= float(value) <= 1.0
        except ValueError:
            return False
    return isinstance(value, float) and 0.0 <= value <= 1.0


def _show(value: Sequence[Any] | Any) -> str:
    return repr(value)[:SHOWN_CHARS]
