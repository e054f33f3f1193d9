"""JMESPath in graphs: which expressions are accepted, what they are evaluated on, and when a body must be JSON.

An expression that names `request`, `response`, `headers` or `response_headers` at its root is evaluated on a document
of these; any other, as KServe writes them, on the body itself: the answer of the step before, else the node's input.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

from raymaker.serving.backend import Invocation
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.runtime_wire import Headers

DOCUMENT_FIELDS = frozenset({"request", "response", "headers", "response_headers"})
ANSWER_FIELDS = frozenset({"response", "response_headers"})
WHOLE = "@"
_FALSE: tuple[Any, ...] = (None, "", [], {})
_OWN_CONTEXT = {"field", "index", "slice", "literal", "expref"}
"""Nodes of jmespath's syntax tree whose children, if any, are never evaluated at the root."""
_LEFT_AT_ROOT = {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "pipe"}
"""Those of whose children only the first is."""


class NoExpression(Exception):
    """A text that is no JMESPath expression, or none that can be evaluated; the message says why."""


class BadBody(Exception):
    """An expression met a body that it cannot be evaluated on. `in_input` tells the node's input from an answer."""

    def __init__(self, reason: str, *, in_input: bool) -> None:
        super().__init__(reason)
        self.in_input = in_input


@dataclass(frozen=True)
class Expression:
    """A compiled expression and the fields that it names at its root; WHOLE among them means the root itself."""

    text: str
    compiled: Any
    roots: frozenset[str]

    @property
    def is_plain(self) -> bool:
        """Whether it is evaluated on a body rather than on the document."""
        return not self.roots & DOCUMENT_FIELDS

    @property
    def uses_answer(self) -> bool:
        """Whether it names the answer of the step before."""
        return bool(self.roots & ANSWER_FIELDS)


@functools.lru_cache(maxsize=4096)
def read_expression(text: str) -> Expression:
    """Compile an expression. Raises NoExpression."""
    try:
        compiled = jmespath.compile(text)
        roots = frozenset(_roots(compiled.parsed))
        _check_functions(compiled.parsed)
    except JMESPathError as error:
        raise NoExpression(f"it is no JMESPath expression: {str(error).splitlines()[0].rstrip(': ')}") from None
    except RecursionError:
        raise NoExpression("it is nested too deeply") from None
    named = roots & DOCUMENT_FIELDS
    if named and (other := roots - DOCUMENT_FIELDS):
        raise NoExpression(
            f"it names {_listed(named)} beside {_listed(other)}: where one of {_listed(DOCUMENT_FIELDS)} is named, "
            "every path begins with one of them"
        )
    return Expression(text, compiled, roots)


class _Content:
    """A body with its headers, parsed where an expression needs it, once. `name` is what messages call the body."""

    def __init__(self, headers: Headers, body: bytes, name: str, *, is_input: bool) -> None:
        self._headers = headers
        self._body = body
        self._name = name
        self.is_input = is_input

    @functools.cached_property
    def json(self) -> Any:
        """The body's value. Raises BadBody."""
        try:
            return read_json(self._body)[1]
        except ValueError as error:
            raise BadBody(f"{self._name} is not JSON: {error}", in_input=self.is_input) from None

    @functools.cached_property
    def headers(self) -> dict[str, str]:
        """Values by name in lower case."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._headers}


class Scope:
    """What the expressions of a node are evaluated on: its input, and the answer of the step before."""

    def __init__(self, given: Invocation, name: str = "the request's body") -> None:
        self._input = _Content(given.headers, given.body, name, is_input=True)
        self._answer: _Content | None = None

    def take_in(self, answer: ContainerAnswer) -> None:
        """Go on with the answer of a step."""
        self._answer = _Content(answer.headers, answer.body, "the answer of the step before", is_input=False)

    def holds(self, expression: Expression) -> bool:
        """Tell whether a condition is met, as JMESPath defines truth. Raises BadBody."""
        value = self.evaluate(expression)
        return value is not False and value not in _FALSE

    def evaluate(self, expression: Expression) -> Any:
        """Evaluate an expression. Raises BadBody for a body that is no JSON or not of the form that it needs."""
        subject = self._plain(expression) if expression.is_plain else self._document(expression.roots)
        try:
            return expression.compiled.search(subject)
        except (JMESPathError, RecursionError, TypeError, ValueError) as error:
            reason = f"it cannot be evaluated: {error}"
            raise BadBody(reason, in_input=not self.is_of_answer(expression)) from None

    def is_of_answer(self, expression: Expression) -> bool:
        """Tell whether an expression reads an answer, rather than the input alone."""
        return self._answer is not None and (expression.is_plain or expression.uses_answer)

    def _plain(self, expression: Expression) -> Any:
        return (self._answer or self._input).json if expression.roots else None

    def _document(self, roots: frozenset[str]) -> dict[str, Any]:
        """Make the document that an expression sees. What it does not name is not read."""
        document: dict[str, Any] = {}
        if "request" in roots:
            document["request"] = self._input.json
        if "headers" in roots:
            document["headers"] = self._input.headers
        if "response" in roots and self._answer is not None:
            document["response"] = self._answer.json
        if "response_headers" in roots and self._answer is not None:
            document["response_headers"] = self._answer.headers
        return document


def read_json(body: bytes) -> tuple[str, Any]:
    """Decode JSON as its standard has it, without NaN and Infinity: the text and its value. Raises ValueError."""
    if not body:
        raise ValueError("it is empty")
    try:
        text = body.decode(json.detect_encoding(body))
        return text, json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(value: Any) -> bytes:
    """Encode a value compactly. Raises ValueError where JSON has no word for it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not part of JSON")


def _roots(tree: Any) -> Iterator[str]:
    """Find the fields that a syntax tree takes from what it is evaluated on, WHOLE for that itself."""
    kind, children = tree["type"], tree["children"]
    if kind == "field":
        yield tree["value"]
    elif kind in {"current", "identity"}:
        yield WHOLE
    elif kind in _LEFT_AT_ROOT:
        yield from _roots(children[0])
    elif kind not in _OWN_CONTEXT:
        for child in children:
            yield from _roots(child)


def _check_functions(tree: Any) -> None:
    if tree["type"] == "function_expression" and tree["value"] not in Functions.FUNCTION_TABLE:
        raise NoExpression(f"JMESPath has no function {tree['value']}()")
    for child in tree["children"]:
        if isinstance(child, dict):
            _check_functions(child)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
