"""What a graph's routers decide, as pure functions: a table of generators, one per router type.

A rule yields what is to be done next, is sent what came of it, and returns the node's outcome. It calls nobody and
knows no time; `run` carries out what rules decide. KServe's router is followed where it has the case.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

from raymaker.serving.backend import Invocation
from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.document import Dependency, Node, RouterType, Step
from raymaker.serving.graph.ensemble import join_members, member_of
from raymaker.serving.graph.expressions import BadBody, Scope
from raymaker.serving.graph.inputs import choose_input, is_met, is_settled, may_be_answer
from raymaker.serving.graph.outcomes import Origin, Outcome, failed


class Situation(NamedTuple):
    """What a node finds: its input, and where it stands in the graph."""

    given: Invocation
    draw: Callable[[], float]
    """Numbers from 0 up to 1, for splitters."""
    is_last: bool = True
    """Whether the node's answer is the graph's, as it is."""
    is_clients: bool = True
    """Whether the input is the client's own, rather than made of a step's answer."""


class Call(NamedTuple):
    """Call a step, and send its Outcome."""

    step: Step
    given: Invocation
    is_last: bool = False


class CallTogether(NamedTuple):
    """Call steps at once, and send an Outcome for each; None for those given up because a hard one failed."""

    calls: Sequence[Call]


class Copy(NamedTuple):
    """Call a step and go on: what it answers is dropped."""

    step: Step
    given: Invocation


class Skip(NamedTuple):
    """Note that a step is not called."""

    step: Step


class Fail(NamedTuple):
    """Note that a step failed although its container did not, and send its Outcome."""

    step: Step
    outcome: Outcome


Decision = Call | CallTogether | Copy | Skip | Fail
Ruling = Generator[Decision, Any, Outcome]
Attempt = Generator[Decision, Any, Outcome | None]
"""A ruling over one step; None where it is not called."""


def decide(node: Node, situation: Situation) -> Ruling:
    """Rule over one request at one node."""
    return ROUTERS[node.router](node, situation)


def run_sequence(node: Node, situation: Situation) -> Ruling:
    """Call steps in order. A condition that is not met ends the sequence with what there is."""
    scope = _scope(node, situation)
    answer: ContainerAnswer | None = None
    last_failure = None
    for index, step in enumerate(node.steps):
        if step.is_mirror:
            yield _copy(step, situation.given, scope, answer)
            continue
        outcome = yield from _try_step(step, situation, scope, answer, later=node.steps[index + 1 :])
        if outcome is None:
            break
        if outcome.is_good:
            answer = outcome.answer
            scope.take_in(answer)
        elif step.dependency is Dependency.HARD:
            return outcome
        else:
            last_failure = outcome
    return Outcome(answer) if answer is not None else last_failure or _nothing_taken(node)


def run_switch(node: Node, situation: Situation) -> Ruling:
    """Call the first step whose condition is met; the next such one where a soft step fails."""
    scope = _scope(node, situation)
    yield from _copy_mirrors(node, situation, scope)
    remaining = _live(node)
    return (yield from _call_one(node, situation, scope, lambda: remaining.pop(0) if remaining else None))


def run_splitter(node: Node, situation: Situation) -> Ruling:
    """Call one step, drawn by weight; draw among the others where a soft step fails."""
    scope = _scope(node, situation)
    yield from _copy_mirrors(node, situation, scope)
    remaining = _live(node)

    def draw() -> Step | None:
        if step := pick(remaining, situation.draw()):
            remaining.remove(step)
        return step

    return (yield from _call_one(node, situation, scope, draw))


def run_ensemble(node: Node, situation: Situation) -> Ruling:
    """Call all steps at once and join their answers under their labels, null for a soft step that failed."""
    scope = _scope(node, situation)
    yield from _copy_mirrors(node, situation, scope)
    calls: list[Call] = []
    outcomes: dict[str, Outcome] = {}
    for step in _live(node):
        try:
            if is_met(step, scope):
                calls.append(Call(step, choose_input(step, situation.given, scope)))
            else:
                yield Skip(step)
        except BadBody as fault:
            outcome: Outcome = yield Fail(step, _bad_body(fault, situation))
            outcomes[step.label] = outcome
            if step.dependency is Dependency.HARD:
                return outcome
    sent: Sequence[Outcome | None] = yield CallTogether(calls)
    outcomes |= {call.step.label: outcome for call, outcome in zip(calls, sent, strict=True) if outcome is not None}
    return (yield from _join(node, outcomes))


ROUTERS: Mapping[RouterType, Callable[[Node, Situation], Ruling]] = {
    RouterType.SEQUENCE: run_sequence,
    RouterType.SWITCH: run_switch,
    RouterType.ENSEMBLE: run_ensemble,
    RouterType.SPLITTER: run_splitter,
}


def pick(steps: Sequence[Step], point: float) -> Step | None:
    """Choose a step by weight with a number from 0 up to 1; None where nothing has any weight."""
    weighted = [step for step in steps if step.weight]
    left = point * sum(step.weight or 0.0 for step in weighted)
    for step in weighted:
        left -= step.weight or 0.0
        if left < 0:
            return step
    return weighted[-1] if weighted else None  # what rounding leaves is the last one's


def _scope(node: Node, situation: Situation) -> Scope:
    return Scope(situation.given, "the request's body" if situation.is_clients else f"the input of node {node.name}")


def _live(node: Node) -> list[Step]:
    return [step for step in node.steps if not step.is_mirror]


def _copy_mirrors(node: Node, situation: Situation, scope: Scope) -> Generator[Decision, Any, None]:
    for step in node.steps:
        if step.is_mirror:
            yield _copy(step, situation.given, scope, None)


def _copy(step: Step, given: Invocation, scope: Scope, answer: ContainerAnswer | None) -> Copy | Skip:
    """A mirror is called where its condition is met; one that cannot be given anything is nobody's trouble."""
    try:
        if is_met(step, scope):
            return Copy(step, choose_input(step, given, scope, answer))
    except BadBody:
        pass
    return Skip(step)


def _try_step(
    step: Step, situation: Situation, scope: Scope, answer: ContainerAnswer | None = None, later: Sequence[Step] = ()
) -> Attempt:
    """Call a step where its condition is met. `later` are those of a sequence that may follow."""
    try:
        if not is_met(step, scope):
            yield Skip(step)
            return None
        given = choose_input(step, situation.given, scope, answer, keeps_accept=may_be_answer(later))
    except BadBody as fault:
        outcome: Outcome = yield Fail(step, _bad_body(fault, situation))
        return outcome
    outcome = yield Call(step, given, situation.is_last and is_settled(later))
    return outcome


def _call_one(node: Node, situation: Situation, scope: Scope, next_step: Callable[[], Step | None]) -> Ruling:
    """Call steps until one answers, or a hard one fails."""
    last_failure = None
    while step := next_step():
        outcome = yield from _try_step(step, situation, scope)
        if outcome is None:
            continue
        if outcome.is_good or step.dependency is Dependency.HARD:
            return outcome
        last_failure = outcome
    return last_failure or _nothing_taken(node)


def _join(node: Node, outcomes: Mapping[str, Outcome]) -> Ruling:
    """Make an ensemble's answer: the object of all; a failure where a hard step failed or nothing else is left."""
    members: dict[str, str] = {}
    good_count, first_failure = 0, None
    for step in _live(node):
        outcome = outcomes.get(step.label)
        if outcome is None:
            continue
        if outcome.is_good:
            outcome = yield from _join_in(step, outcome, members)
        if outcome.is_good:
            good_count += 1
            continue
        if step.dependency is Dependency.HARD:
            return outcome
        members[step.label] = "null"
        first_failure = first_failure or outcome
    if good_count == 0:
        return first_failure or _nothing_taken(node)
    return Outcome(join_members(members))


def _join_in(step: Step, outcome: Outcome, members: dict[str, str]) -> Ruling:
    """Add a good answer to the members, or fail the step where it cannot be added."""
    try:
        members[step.label] = member_of(outcome.answer)
    except ValueError as fault:
        reason = f"its answer says that it is JSON, and is not: {fault}"
        outcome = yield Fail(step, failed(Origin.GRAPH, 500, reason))
    return outcome


def _bad_body(fault: BadBody, situation: Situation) -> Outcome:
    """Fail over a body. Whose body it is decides whether the client is told to send another."""
    if fault.in_input and situation.is_clients:
        return failed(Origin.REQUEST, 400, str(fault))
    return failed(Origin.GRAPH, 500, str(fault))


def _nothing_taken(node: Node) -> Outcome:
    return failed(Origin.GRAPH, 404, f"node {node.name} took no step: none of its conditions holds")
