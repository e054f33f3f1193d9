"""How a graph's failure looks to boto3: the runtime's error shapes, the step named. Pure."""

from __future__ import annotations

import json

from raymaker.serving import runtime_wire as wire
from raymaker.serving.graph.outcomes import Failure, Origin
from raymaker.serving.graph.run import GraphAnswer
from raymaker.serving.runtime_wire import WireAnswer


def wire_error(answer: GraphAnswer, log_stream_arn: str = "") -> WireAnswer:
    """Make the error that a failed graph is answered with. `log_stream_arn` is the failed container's."""
    assert answer.failure is not None
    plain = _plain_error(answer, answer.failure, log_stream_arn)
    document = json.loads(plain.body)
    document["Message"] = f"{_place(answer.failure)}: {document['Message']}"
    return WireAnswer(plain.status, plain.headers, json.dumps(document).encode())


def _plain_error(answer: GraphAnswer, failure: Failure, log_stream_arn: str) -> WireAnswer:
    said = answer.answer
    match failure.origin:
        case Origin.REQUEST:
            return wire.invalid(failure.reason)
        case Origin.REFUSAL:
            return WireAnswer(said.status, said.headers, said.body)
        case Origin.SILENCE:
            return wire.model_failed(failure.reason, log_stream_arn)
        case Origin.GRAPH:
            status, reason, arn = said.status, failure.reason, log_stream_arn
            return wire.error("ModelError", reason, OriginalStatusCode=status, OriginalMessage=reason, LogStreamArn=arn)
        case Origin.CONTAINER:
            return wire.model_error(said.status, said.body, log_stream_arn)


def _place(failure: Failure) -> str:
    return f"Step {failure.step} ({failure.target})" if failure.target else f"Node at {failure.step}"
