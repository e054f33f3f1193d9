"""The small parts of graphs: expressions, weights, the trace's header, and errors as boto3 reads them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.answers import wire_error
from raymaker.serving.graph.document import Step, Target, TargetKind
from raymaker.serving.graph.expressions import read_expression
from raymaker.serving.graph.outcomes import Failure, Origin
from raymaker.serving.graph.rules import pick
from raymaker.serving.graph.run import GraphAnswer
from raymaker.serving.graph.trace import HEADER_LIMIT_BYTES, StepState, StepTrace, trace_header
from raymaker.serving.runtime_wire import not_ready

CONTAINER = Target(TargetKind.CONTAINER, "scaler")


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("a.b", {"a"}),
        ("[0].x", {"@"}),
        ("*.x", {"@"}),
        ("length(@)", {"@"}),
        ("request.items[?price > `3`].name", {"request"}),
        ("request.items[*].{n: name, r: response}", {"request"}),
        ("sort_by(response.list, &score)[-1]", {"response"}),
        ("{x: request.x, y: response.y[]}", {"request", "response"}),
        ("!request.flag || headers.accept", {"request", "headers"}),
        ("request.x | y", {"request"}),
        ('request."response"', {"request"}),
        ("`true`", set()),
    ],
)
def test_an_expression_knows_what_it_reads_at_the_root(text: str, roots: set[str]) -> None:
    assert read_expression(text).roots == roots


def test_weights_share_out_in_proportion() -> None:
    steps = [Step(str(weight), CONTAINER, weight=weight) for weight in (90.0, 0.0, 9.5, 0.5)]
    drawn = Counter(step.label for number in range(1000) if (step := pick(steps, number / 1000)))
    assert drawn == {"90.0": 900, "9.5": 95, "0.5": 5}


def test_a_draw_at_the_very_end_still_finds_a_step() -> None:
    steps = [Step("a", CONTAINER, weight=0.1), Step("b", CONTAINER, weight=0.2), Step("c", CONTAINER, weight=0.0)]
    chosen = pick(steps, 1.0 - 2**-53)
    assert chosen is not None
    assert chosen.label == "b"


def test_a_trace_is_one_short_line() -> None:
    steps = [
        StepTrace("root/größe", CONTAINER, StepState.ANSWERED, 0.123, 4.567, 200, 1),
        StepTrace("root/1", Target(TargetKind.NODE, "n"), StepState.SKIPPED, 5),
    ]
    assert json.loads(trace_header(steps, 5.0)) == {
        "total_ms": 5.0,
        "steps": [
            {
                "step": "root/größe",
                "container": "scaler",
                "state": "Answered",
                "status": 200,
                "start_ms": 0.12,
                "duration_ms": 4.57,
                "attempts": 1,
            },
            {"step": "root/1", "node": "n", "state": "Skipped", "start_ms": 5},
        ],
    }
    assert trace_header(steps, 5.0).isascii()


def test_a_trace_that_is_too_long_for_a_header_says_what_it_leaves_out() -> None:
    steps = [StepTrace(f"root/{'x' * 50}", CONTAINER, StepState.ANSWERED, 1, 1, 200, 1) for _ in range(200)]
    header = trace_header(steps, 9.0)
    document = json.loads(header)
    assert len(header) <= HEADER_LIMIT_BYTES
    assert len(document["steps"]) + document["left_out"] == 200


def error(origin: Origin, status: int, body: bytes, reason: str = "because", target: Target | None = CONTAINER) -> Any:
    """A graph's failure as its client gets it: status, code, members."""
    failure = Failure(origin, reason, "root/scale", target)
    headers = not_ready("").headers if origin is Origin.REFUSAL else []
    answer = wire_error(GraphAnswer(ContainerAnswer(status, headers, body), failure, (), 0.0), "arn")
    return answer.status, dict(answer.headers)[b"x-amzn-errortype"], json.loads(answer.body)


def test_a_containers_error_travels_with_its_status_and_words_and_names_the_step() -> None:
    status, code, said = error(Origin.CONTAINER, 507, b"no memory")
    assert (status, code) == (424, b"ModelError")
    assert said["Message"].startswith("Step root/scale (container scaler): Received server error (507)")
    assert (said["OriginalStatusCode"], said["OriginalMessage"], said["LogStreamArn"]) == (507, "no memory", "arn")


def test_no_answer_is_a_model_error_of_status_0() -> None:
    status, code, said = error(Origin.SILENCE, 0, b"", "it took longer than 3 s")
    assert (status, code, said["OriginalStatusCode"]) == (424, b"ModelError", 0)
    assert said["OriginalMessage"] == "it took longer than 3 s"


def test_a_body_that_the_client_must_mend_is_a_validation_error() -> None:
    status, code, said = error(Origin.REQUEST, 400, b"", "the request's body is not JSON")
    assert (status, code) == (400, b"ValidationError")
    assert said["Message"] == "Step root/scale (container scaler): the request's body is not JSON"


def test_a_graph_that_took_no_step_names_its_node() -> None:
    status, code, said = error(Origin.GRAPH, 404, b"", "node root took no step", target=None)
    assert (status, code, said["OriginalStatusCode"]) == (424, b"ModelError", 404)
    assert said["Message"] == "Node at root/scale: node root took no step"


def test_a_refusal_keeps_its_code_and_its_retry_after() -> None:
    status, code, said = error(Origin.REFUSAL, 429, not_ready("it is being replaced").body)
    assert (status, code) == (429, b"ModelNotReadyException")
    assert said["Message"] == "Step root/scale (container scaler): it is being replaced"
