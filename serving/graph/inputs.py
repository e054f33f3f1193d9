"""Whether a step takes part in a request, and what it is given: bodies, content types and Accept. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from raymaker.serving.backend import Invocation
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.document import REQUEST, RESPONSE, Dependency, Step
from raymaker.serving.graph.expressions import BadBody, Scope, read_expression, write_json


def is_met(step: Step, scope: Scope) -> bool:
    """Tell whether a step may be called. Raises BadBody, with the condition in its words."""
    if not step.condition:
        return True
    try:
        return scope.holds(read_expression(step.condition))
    except BadBody as fault:
        raise BadBody(f"Condition {step.condition}: {fault}", in_input=fault.in_input) from None


def choose_input(step: Step, given: Invocation, scope: Scope, answer: ContainerAnswer | None = None) -> Invocation:
    """Choose what a step is given, of the node's input and the answer of the step before. Raises BadBody.

    Where no step has answered yet, `$response` is the node's input, as in KServe.
    """
    if step.data in {"", REQUEST} or (step.data == RESPONSE and answer is None):
        return given
    if step.data == RESPONSE:
        assert answer is not None
        content_types = [value for name, value in answer.headers if name == b"content-type"]
        return _with_body(given, content_types, answer.body)
    return _with_body(given, [b"application/json"], _project(step, scope))


def without_accept(given: Invocation) -> Invocation:
    """What a step is given whose answer is not the client's: the client's Accept says nothing about that one."""
    if any(name == b"accept" for name, _ in given.headers):
        return Invocation([header for header in given.headers if header[0] != b"accept"], given.body)
    return given


def may_be_answer(later: Sequence[Step]) -> bool:
    """Tell whether a sequence may end with an answer that `later` steps would follow."""
    for step in later:
        if step.is_mirror:
            continue
        if step.condition:
            return True
        if step.dependency is Dependency.HARD:
            return False
    return True


def is_settled(later: Sequence[Step]) -> bool:
    """Tell whether a sequence ends with this answer, come what may, and nobody looks into it."""
    return all(step.is_mirror and not looks_at_answer(step) for step in later)


def looks_at_answer(step: Step) -> bool:
    """Tell whether a step of a sequence reads the answer of the step before."""
    if step.data == RESPONSE:
        return True
    expressions = [read_expression(text) for text in (step.condition, step.data) if text not in {"", REQUEST}]
    return any(expression.uses_answer or expression.is_plain for expression in expressions)


def _project(step: Step, scope: Scope) -> bytes:
    """Evaluate a step's Data. Raises BadBody, with the projection in its words."""
    expression = read_expression(step.data)
    try:
        value = scope.evaluate(expression)
    except BadBody as fault:
        raise BadBody(f"Data {step.data}: {fault}", in_input=fault.in_input) from None
    if value is None:
        raise BadBody(f"Data {step.data}: it gives nothing", in_input=not scope.is_of_answer(expression))
    try:
        return write_json(value)
    except ValueError as fault:
        raise BadBody(f"Data {step.data}: {fault}", in_input=not scope.is_of_answer(expression)) from None


def _with_body(given: Invocation, content_types: Sequence[bytes], body: bytes) -> Invocation:
    headers = [header for header in given.headers if header[0] != b"content-type"]
    return Invocation([*((b"content-type", value) for value in content_types), *headers], body)
