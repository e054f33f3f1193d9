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


def choose_input(
    step: Step, given: Invocation, scope: Scope, answer: ContainerAnswer | None = None, *, keeps_accept: bool = False
) -> Invocation:
    """Choose what a step is given, of the node's input and the answer of the step before. Raises BadBody.

    Where no step has answered yet, `$response` is the node's input, as in KServe. The client's Accept is for
    steps whose answer may be the client's.
    """
    if step.data in {"", REQUEST} or (step.data == RESPONSE and answer is None):
        if keeps_accept or not any(name == b"accept" for name, _ in given.headers):
            return given
        return Invocation([header for header in given.headers if header[0] != b"accept"], given.body)
    if step.data == RESPONSE:
        assert answer is not None
        headers = [header for header in answer.headers if header[0] == b"content-type"]
        body = answer.body
    else:
        headers = [(b"content-type", b"application/json")]
        body = _project(step, scope)
    dropped = _CONTENT_TYPE if keeps_accept else _CONTENT_TYPE_AND_ACCEPT
    return Invocation(headers + [header for header in given.headers if header[0] not in dropped], body)


_CONTENT_TYPE = frozenset({b"content-type"})
_CONTENT_TYPE_AND_ACCEPT = _CONTENT_TYPE | {b"accept"}


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
