"""What graphs answer, as a table: each case can be run in-process, and on real containers wherever these run.

The containers are those of `graph_stub`, told by the request itself what to answer. A graph's answer and trace must be
the same however its containers are placed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from raymaker.serving.backend import Invocation

JSON = "application/json"
CSV = "text/csv; charset=utf-8"
CONTAINERS = ("a", "b", "c", "d", "e")
WRAP: dict[str, Any] = {}
TELL = {"tell": True}
HANG = {"hang": True}
BREAK = {"break": True}


def say(body: Any, status: int = 200, content_type: str = JSON) -> dict[str, Any]:
    """A reply; what is no text is sent as JSON."""
    return {"status": status, "type": content_type, "body": body if isinstance(body, str) else json.dumps(body)}


def step(container: str = "", **fields: Any) -> dict[str, Any]:
    """A step of a graph's document: a container's, or a node's where `NodeName` is given."""
    return {**({"ContainerHostname": container} if container else {}), **fields}


def node(router: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"RouterType": router, "Steps": list(steps)}


def to_node(name: str, **fields: Any) -> dict[str, Any]:
    return step(NodeName=name, **fields)


@dataclass(frozen=True)
class Case:
    """A graph, what its containers answer to one request, and what is expected of the graph."""

    name: str
    nodes: dict[str, Any]
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    body: bytes = b"x"
    content_type: str = CSV
    accept: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    draws: tuple[float, ...] = (0.0,)
    """The splitters' draws. A case for which they matter has a weight of 0 beside one of 1, or can be run in-process
    only."""
    status: int = 200
    answer: Any = None
    """The answer's body: bytes as they are, anything else as the JSON value."""
    answer_type: str | None = None
    trace: tuple[str, ...] = ()
    """`path state status`, the status left out where there is none."""
    failed_step: str = ""
    said: str = ""
    """Part of the reason of the failure."""

    @property
    def document(self) -> dict[str, Any]:
        """The graph as a request has it."""
        return {"Nodes": self.nodes}

    @property
    def is_chance(self) -> bool:
        """Whether the outcome depends on what a splitter draws."""
        return self.draws != (0.0,)

    def request(self, inference_id: str) -> Invocation:
        """The request, with the script for the containers. `inference_id` must be a new one each time."""
        headers = {
            "content-type": self.content_type,
            "accept": self.accept,
            "x-amzn-sagemaker-custom-attributes": json.dumps(self.answers),
            "x-amzn-sagemaker-inference-id": inference_id,
            **self.headers,
        }
        return Invocation([(key.encode(), value.encode()) for key, value in headers.items() if value], self.body)


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"root": node("Sequence", *steps)}


def _switch(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"root": node("Switch", *steps)}


def _ensemble(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"root": node("Ensemble", *steps)}


def _splitter(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"root": node("Splitter", *steps)}


SURE, UNSURE = say({"label": 3, "confidence": 0.97}), say({"label": 3, "confidence": 0.4})
CASCADE = _sequence(step("a", StepName="small"), step("b", StepName="big", Condition="confidence < `0.8`"))

SEQUENCES = [
    Case(
        "a sequence passes each answer on with its content type verbatim",
        _sequence(step("a"), step("b", Data="$response"), step("c", Data="$response")),
        {"a": [say("1,2", content_type="text/csv; charset=latin-1")], "b": [WRAP], "c": [TELL]},
        answer={"by": "c", "type": "text/csv; charset=latin-1", "accept": None, "body": "b(1,2)"},
        answer_type=JSON,
        trace=("root/0 Answered 200", "root/1 Answered 200", "root/2 Answered 200"),
    ),
    Case(
        "steps without Data are given the request",
        _sequence(step("a"), step("b")),
        {"b": [TELL]},
        answer={"by": "b", "type": CSV, "accept": None, "body": "x"},
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "the first step's $response is the request",
        _sequence(step("a", Data="$response"), step("b", Data="$response")),
        answer=b"b(a(x))",
        answer_type=CSV,
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "bodies are bytes",
        _sequence(step("a", Data="$response"), step("b", Data="$response")),
        body=b"\x00\xff\x93NUMPY",
        content_type="application/x-npy",
        answer=b"b(a(\x00\xff\x93NUMPY))",
        answer_type="application/x-npy",
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "an empty body is a body",
        _sequence(step("a", Data="$response"), step("b", Data="$response")),
        body=b"",
        answer=b"b(a())",
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "Accept goes to the step whose answer the client gets",
        _sequence(step("a"), step("b", Data="$response")),
        {"a": [TELL], "b": [WRAP]},
        accept="text/csv",
        answer=b'b({"by": "a", "type": "text/csv; charset=utf-8", "accept": null, "body": "x"})',
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "Accept goes to the last step",
        _sequence(step("a"), step("b", Data="$response")),
        {"b": [TELL]},
        accept="text/csv",
        answer={"by": "b", "type": CSV, "accept": "text/csv", "body": "a(x)"},
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "a condition that is met goes on",
        CASCADE,
        {"a": [UNSURE], "b": [say({"label": 8})]},
        answer={"label": 8},
        trace=("root/small Answered 200", "root/big Answered 200"),
    ),
    Case(
        "a condition that is not met ends with what there is",
        CASCADE,
        {"a": [SURE]},
        answer={"label": 3, "confidence": 0.97},
        answer_type=JSON,
        trace=("root/small Answered 200", "root/big Skipped"),
    ),
    Case(
        "steps behind a condition that is not met are not reached",
        _sequence(step("a"), step("b", Condition="nothing"), step("c")),
        {"a": [say({})]},
        answer={},
        trace=("root/0 Answered 200", "root/1 Skipped"),
    ),
    Case(
        "a sequence that takes no step answers 404",
        _sequence(step("a", Condition="request.wanted"), step("b")),
        body=b'{"wanted": false}',
        status=404,
        failed_step="root",
        said="none of its conditions holds",
        trace=("root/0 Skipped",),
    ),
    Case(
        "a condition may read request, response and headers at once",
        _sequence(
            step("a"),
            step("b", Condition="request.ask && response.n > `1` && contains(headers.\"content-type\", 'json')"),
        ),
        {"a": [say({"n": 2})], "b": [say("yes", content_type="text/plain")]},
        body=b'{"ask": true}',
        content_type=JSON,
        answer=b"yes",
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "a condition may read the headers of the answer",
        _sequence(step("a"), step("b", Condition="starts_with(response_headers.\"content-type\", 'image/')")),
        {"a": [say("GIF89a", content_type="image/gif")], "b": [TELL]},
        answer={"by": "b", "type": CSV, "accept": None, "body": "x"},
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "Data may be a projection of request and response",
        _sequence(step("a"), step("b", Data="{id: request.id, scores: response.scores[*].p}")),
        {"a": [say({"scores": [{"p": 0.1}, {"p": 0.9}]})], "b": [TELL]},
        body=b'{"id": 7}',
        content_type=JSON,
        answer={"by": "b", "type": JSON, "accept": None, "body": '{"id":7,"scores":[0.1,0.9]}'},
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "a plain projection is one of the answer before",
        _sequence(step("a"), step("b", Data="predictions[0]")),
        {"a": [say({"predictions": [[1, 2], [3]]})]},
        answer=b"b([1,2])",
        answer_type=JSON,
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "a condition on an answer that is no JSON fails its step",
        CASCADE,
        {"a": [say("3,0.97", content_type="text/csv")]},
        status=500,
        failed_step="root/big",
        said="the answer of the step before is not JSON",
        trace=("root/small Answered 200", "root/big Failed 500"),
    ),
    Case(
        "a condition on a request that is no JSON is the client's to mend",
        _sequence(step("a"), step("b", Condition="request.wanted")),
        {"a": [say({})]},
        body=b"1,2",
        status=400,
        failed_step="root/1",
        said="the request's body is not JSON",
        trace=("root/0 Answered 200", "root/1 Failed 400"),
    ),
    Case(
        "NaN is not JSON",
        CASCADE,
        {"a": [say('{"confidence": NaN}')]},
        status=500,
        failed_step="root/big",
        said="NaN is not part of JSON",
        trace=("root/small Answered 200", "root/big Failed 500"),
    ),
    Case(
        "a projection that gives nothing fails its step",
        _sequence(step("a"), step("b", Data="response.missing")),
        {"a": [say({})]},
        status=500,
        failed_step="root/1",
        said="it gives nothing",
        trace=("root/0 Answered 200", "root/1 Failed 500"),
    ),
    Case(
        "a projection that JMESPath cannot make fails its step",
        _sequence(step("a"), step("b", Data="{n: length(response.n)}")),
        {"a": [say({"n": 5})]},
        status=500,
        failed_step="root/1",
        said="length(",
        trace=("root/0 Answered 200", "root/1 Failed 500"),
    ),
]

DEPENDENCIES = [
    Case(
        "a hard step's error is the graph's",
        _sequence(step("a"), step("b", StepName="broken"), step("c")),
        {"b": [say("out of memory", 503, "text/plain")]},
        status=503,
        answer=b"out of memory",
        answer_type="text/plain",
        failed_step="root/broken",
        said="it answered 503",
        trace=("root/0 Answered 200", "root/broken Failed 503"),
    ),
    Case(
        "a redirect is no answer to go on with",
        _sequence(step("a"), step("b", Data="$response")),
        {"a": [say("", 302)]},
        status=302,
        answer=b"",
        failed_step="root/0",
        trace=("root/0 Failed 302",),
    ),
    Case(
        "a soft step that fails is passed over",
        _sequence(step("a"), step("b", Dependency="Soft", Data="$response"), step("c", Data="$response")),
        {"b": [say("no", 500)]},
        answer=b"c(a(x))",
        trace=("root/0 Answered 200", "root/1 Failed 500", "root/2 Answered 200"),
    ),
    Case(
        "a soft last step that fails leaves what there is",
        _sequence(step("a"), step("b", Dependency="Soft")),
        {"b": [say("no", 500)]},
        answer=b"a(x)",
        trace=("root/0 Answered 200", "root/1 Failed 500"),
    ),
    Case(
        "where every step is soft and fails, the last error is the answer",
        _sequence(step("a", Dependency="Soft"), step("b", Dependency="Soft")),
        {"a": [say("one", 500)], "b": [say("two", 418)]},
        status=418,
        answer=b"two",
        failed_step="root/1",
        trace=("root/0 Failed 500", "root/1 Failed 418"),
    ),
    Case(
        "a soft step whose condition cannot be evaluated is passed over",
        _sequence(step("a"), step("b", Condition="x", Dependency="Soft"), step("c", Data="$response")),
        {"a": [say("text", content_type="text/plain")]},
        answer=b"c(text)",
        trace=("root/0 Answered 200", "root/1 Failed 500", "root/2 Answered 200"),
    ),
    Case(
        "a container that gives no answer fails its step",
        _sequence(step("a"), step("b")),
        {"a": [BREAK]},
        status=0,
        failed_step="root/0",
        trace=("root/0 Failed",),
    ),
    Case(
        "a container that gives no answer is passed over where it is soft",
        _sequence(step("a", Dependency="Soft"), step("b", Data="$response")),
        {"a": [BREAK]},
        answer=b"b(x)",
        trace=("root/0 Failed", "root/1 Answered 200"),
    ),
]

SWITCHES = [
    Case(
        "a switch takes the first condition that is met",
        _switch(step("a", Condition="n > `10`"), step("b", Condition="n > `1`"), step("c", Condition="n")),
        body=b'{"n": 5}',
        content_type=JSON,
        answer=b'b({"n": 5})',
        trace=("root/0 Skipped", "root/1 Answered 200"),
    ),
    Case(
        "a switch without a condition that is met answers 404",
        _switch(step("a", Condition="n > `10`"), step("b", Condition="m")),
        body=b'{"n": 5}',
        status=404,
        failed_step="root",
        said="node root took no step",
        trace=("root/0 Skipped", "root/1 Skipped"),
    ),
    Case(
        "a switch's step without a condition takes the rest",
        _switch(step("a", Condition="n > `10`"), step("b")),
        body=b'{"n": 5}',
        answer=b'b({"n": 5})',
        trace=("root/0 Skipped", "root/1 Answered 200"),
    ),
    Case(
        "a switch on headers needs no JSON",
        _switch(step("a", Condition="headers.accept == 'image/png'"), step("b")),
        body=b"\xff\xfe",
        accept="image/png",
        answer=b"a(\xff\xfe)",
        trace=("root/0 Answered 200",),
    ),
    Case(
        "a switch on a body that is no JSON is the client's to mend",
        _switch(step("a", Condition="n"), step("b")),
        body=b"1,2",
        status=400,
        failed_step="root/0",
        said="the request's body is not JSON",
        trace=("root/0 Failed 400",),
    ),
    Case(
        "0 is true in JMESPath, empty is not",
        _switch(step("a", Condition="list"), step("b", Condition="zero")),
        body=b'{"zero": 0, "list": []}',
        answer=b'b({"zero": 0, "list": []})',
        trace=("root/0 Skipped", "root/1 Answered 200"),
    ),
    Case(
        "a hard step's error is the switch's",
        _switch(step("a", Condition="n"), step("b")),
        {"a": [say("no", 400)]},
        body=b'{"n": 1}',
        status=400,
        answer=b"no",
        failed_step="root/0",
        trace=("root/0 Failed 400",),
    ),
    Case(
        "a soft step that fails leaves the next condition that is met",
        _switch(step("a", Condition="n", Dependency="Soft"), step("b")),
        {"a": [say("no", 500)]},
        body=b'{"n": 1}',
        answer=b'b({"n": 1})',
        trace=("root/0 Failed 500", "root/1 Answered 200"),
    ),
    Case(
        "a switch may hand on a projection of the request",
        _switch(step("a", Condition="kind == 'text'", Data="text")),
        body=b'{"kind": "text", "text": "hello"}',
        answer=b'a("hello")',
        answer_type=JSON,
        trace=("root/0 Answered 200",),
    ),
]

ENSEMBLES = [
    Case(
        "an ensemble's answers stand under names, or places where there are none",
        _ensemble(step("a", StepName="forest"), step("b"), step("c", StepName="svm")),
        {"a": [say({"p": 0.1})], "b": [say([1, 2])], "c": [say("0.30000000000000004")]},
        answer={"forest": {"p": 0.1}, "1": [1, 2], "svm": 0.30000000000000004},
        answer_type=JSON,
        trace=("root/forest Answered 200", "root/1 Answered 200", "root/svm Answered 200"),
    ),
    Case(
        "text is a string, bytes are base64",
        _ensemble(step("a"), step("b"), step("c")),
        {
            "a": [say("5", content_type="text/csv")],
            "b": [say("\x93\x00", content_type="application/x-npy")],
            "c": [say("\xe9", content_type="text/plain; charset=latin-1")],
        },
        answer={"0": "5", "1": {"ContentType": "application/x-npy", "Base64": "kwA="}, "2": "é"},
        trace=("root/0 Answered 200", "root/1 Answered 200", "root/2 Answered 200"),
    ),
    Case(
        "an answer that says it is JSON and is not fails its step",
        _ensemble(step("a"), step("b")),
        {"a": [say("{oops")], "b": [say({})]},
        status=500,
        failed_step="root/0",
        said="says that it is JSON, and is not",
        trace=("root/0 Failed 500", "root/1 Answered 200"),
    ),
    Case(
        "every step of an ensemble is given the request, without its Accept",
        _ensemble(step("a"), step("b")),
        {"a": [TELL], "b": [TELL]},
        accept="text/csv",
        answer={
            "0": {"by": "a", "type": CSV, "accept": None, "body": "x"},
            "1": {"by": "b", "type": CSV, "accept": None, "body": "x"},
        },
        trace=("root/0 Answered 200", "root/1 Answered 200"),
    ),
    Case(
        "a soft step that is down is null",
        _ensemble(step("a"), step("b", Dependency="Soft"), step("c", Dependency="Soft")),
        {"a": [say(1)], "b": [BREAK], "c": [say("no", 500)]},
        answer={"0": 1, "1": None, "2": None},
        trace=("root/0 Answered 200", "root/1 Failed", "root/2 Failed 500"),
    ),
    Case(
        "a hard step's error is the ensemble's, and the others are given up",
        _ensemble(step("a", StepName="slow"), step("b", StepName="down")),
        {"a": [HANG], "b": [say("no", 507)]},
        status=507,
        answer=b"no",
        failed_step="root/down",
        trace=("root/slow Cancelled", "root/down Failed 507"),
    ),
    Case(
        "where every soft step fails, the first one's error is the answer",
        _ensemble(step("a", Dependency="Soft"), step("b", Dependency="Soft")),
        {"a": [say("one", 500)], "b": [say("two", 418)]},
        status=500,
        answer=b"one",
        failed_step="root/0",
        trace=("root/0 Failed 500", "root/1 Failed 418"),
    ),
    Case(
        "a step whose condition is not met is left out",
        _ensemble(step("a"), step("b", Condition="deep")),
        {"a": [say(1)]},
        body=b'{"deep": false}',
        answer={"0": 1},
        trace=("root/1 Skipped", "root/0 Answered 200"),
    ),
    Case(
        "a null of a container's own is an answer",
        _ensemble(step("a"), step("b", Dependency="Soft")),
        {"a": [say("null")], "b": [say("no", 500)]},
        answer={"0": None, "1": None},
        trace=("root/0 Answered 200", "root/1 Failed 500"),
    ),
]

SPLITTERS = [
    Case(
        "a splitter takes the step that is drawn",
        _splitter(step("a", Weight=90), step("b", Weight=10)),
        draws=(0.95,),
        answer=b"b(x)",
        trace=("root/1 Answered 200",),
    ),
    Case(
        "the border belongs to the next step",
        _splitter(step("a", Weight=1), step("b", Weight=1)),
        draws=(0.5,),
        answer=b"b(x)",
        trace=("root/1 Answered 200",),
    ),
    Case(
        "a weight of 0 is never drawn",
        _splitter(step("a", Weight=0), step("b", Weight=100)),
        answer=b"b(x)",
        trace=("root/1 Answered 200",),
    ),
    Case(
        "a soft step that fails leaves the others to draw from",
        _splitter(step("a", Weight=50, Dependency="Soft"), step("b", Weight=30), step("c", Weight=20)),
        {"a": [BREAK]},
        draws=(0.1, 0.7),
        answer=b"c(x)",
        trace=("root/0 Failed", "root/2 Answered 200"),
    ),
    Case(
        "a step of no weight is no way out",
        _splitter(step("a", Weight=1, Dependency="Soft"), step("b", Weight=0)),
        {"a": [say("no", 500)]},
        status=500,
        answer=b"no",
        failed_step="root/0",
        trace=("root/0 Failed 500",),
    ),
]

TRIES = [
    Case(
        "a step is tried again as often as it says",
        _sequence(step("a", Retries=2), step("b", Data="$response")),
        {"a": [say("no", 503), BREAK, say("good", content_type="text/plain")]},
        answer=b"b(good)",
        trace=("root/0 Answered 200 x3", "root/1 Answered 200"),
    ),
    Case(
        "the last error counts where all attempts fail",
        _sequence(step("a", Retries=1), step("b")),
        {"a": [say("one", 500), say("two", 502)]},
        status=502,
        answer=b"two",
        failed_step="root/0",
        trace=("root/0 Failed 502 x2",),
    ),
    Case(
        "what the client must mend is not tried again",
        _sequence(step("a", Retries=3), step("b")),
        {"a": [say("bad", 422)]},
        status=422,
        answer=b"bad",
        failed_step="root/0",
        trace=("root/0 Failed 422",),
    ),
    Case(
        "a step that takes too long fails",
        _sequence(step("a", TimeoutInSeconds=1), step("b")),
        {"a": [HANG]},
        status=0,
        failed_step="root/0",
        said="it took longer than 1 s",
        trace=("root/0 Failed",),
    ),
    Case(
        "a time limit holds for a node as a whole",
        {
            "root": node("Sequence", to_node("inner", TimeoutInSeconds=1, Dependency="Soft"), step("c")),
            "inner": node("Sequence", step("a"), step("b")),
        },
        {"b": [HANG]},
        answer=b"c(x)",
        trace=("root/0 Failed", "root/0/0 Answered 200", "root/0/1 Cancelled", "root/1 Answered 200"),
    ),
]

MIRRORS = [
    Case(
        "a mirror's answer is dropped",
        _sequence(step("a"), step("b", Mirror=True, Data="$response"), step("c", Data="$response")),
        {"b": [say("dropped")]},
        answer=b"c(a(x))",
        trace=("root/0 Answered 200", "root/1 Mirrored", "root/2 Answered 200"),
    ),
    Case(
        "a mirror that hangs or fails is never noticed",
        _ensemble(step("a", Mirror=True), step("b", Mirror=True), step("c", StepName="live")),
        {"a": [HANG], "b": [BREAK], "c": [say(1)]},
        answer={"live": 1},
        trace=("root/0 Mirrored", "root/1 Mirrored", "root/live Answered 200"),
    ),
    Case(
        "a mirror takes no part in a switch's choice",
        _switch(step("a", Mirror=True), step("b", Mirror=True, Condition="no"), step("c", Condition="n")),
        body=b'{"n": 1}',
        answer=b'c({"n": 1})',
        trace=("root/0 Mirrored", "root/1 Skipped", "root/2 Answered 200"),
    ),
    Case(
        "a mirror takes no part in a splitter's draw",
        _splitter(step("a", Mirror=True), step("b", Weight=1), step("c", Weight=0)),
        answer=b"b(x)",
        trace=("root/0 Mirrored", "root/1 Answered 200"),
    ),
    Case(
        "a mirror whose condition is not met does not end a sequence",
        _sequence(step("a"), step("b", Mirror=True, Condition="rare"), step("c", Data="$response")),
        {"a": [say({})]},
        answer=b"c({})",
        trace=("root/0 Answered 200", "root/1 Skipped", "root/2 Answered 200"),
    ),
    Case(
        "a mirror behind the last step leaves that one the client's Accept",
        _sequence(step("a"), step("b", Mirror=True)),
        {"a": [TELL]},
        accept="text/csv",
        answer={"by": "a", "type": CSV, "accept": "text/csv", "body": "x"},
        trace=("root/0 Answered 200", "root/1 Mirrored"),
    ),
    Case(
        "a mirror whose condition cannot be evaluated is not called",
        _sequence(step("a"), step("b", Mirror=True, Condition="rare")),
        answer=b"a(x)",
        trace=("root/0 Answered 200", "root/1 Skipped"),
    ),
]

NESTED = [
    Case(
        "an ensemble's object is what the next step is given",
        {
            "root": node("Sequence", step("a"), to_node("both", Data="$response"), step("d", Data="$response")),
            "both": node("Ensemble", step("b", StepName="one"), step("c", StepName="two")),
        },
        {"b": [say(1)], "c": [say(2)], "d": [TELL]},
        answer={"by": "d", "type": JSON, "accept": None, "body": '{"one":1,"two":2}'},
        trace=(
            "root/0 Answered 200",
            "root/1 Answered 200",
            "root/1/one Answered 200",
            "root/1/two Answered 200",
            "root/2 Answered 200",
        ),
    ),
    Case(
        "a node's request is what its step was given",
        {
            "root": node("Sequence", step("a"), to_node("choose", Data="$response")),
            "choose": node("Switch", step("b", Condition="request.n > `1`"), step("c")),
        },
        {"a": [say({"n": 2})]},
        answer=b'b({"n": 2})',
        trace=("root/0 Answered 200", "root/1 Answered 200", "root/1/0 Answered 200"),
    ),
    Case(
        "an answer that is no JSON is not the client's to mend, in a node neither",
        {
            "root": node("Sequence", step("a"), to_node("choose", Data="$response")),
            "choose": node("Switch", step("b", Condition="n"), step("c")),
        },
        status=500,
        failed_step="root/1/0",
        said="the input of node choose is not JSON",
        trace=("root/0 Answered 200", "root/1 Failed 500", "root/1/0 Failed 500"),
    ),
    Case(
        "a node's failure names the innermost step",
        {
            "root": node("Sequence", to_node("inner", StepName="outer"), step("c")),
            "inner": node("Ensemble", step("a", StepName="slow"), step("b", StepName="down")),
        },
        {"a": [HANG], "b": [say("no", 500)]},
        status=500,
        answer=b"no",
        failed_step="root/outer/down",
        trace=("root/outer Failed 500", "root/outer/slow Cancelled", "root/outer/down Failed 500"),
    ),
    Case(
        "a soft node that fails is passed over",
        {
            "root": node("Switch", to_node("inner", Dependency="Soft", StepName="first"), step("c", StepName="rest")),
            "inner": node("Switch", step("a", Condition="headers.accept == 'x/y'"), step("b", Condition="headers.z")),
        },
        answer=b"c(x)",
        trace=(
            "root/first Failed 404",
            "root/first/0 Skipped",
            "root/first/1 Skipped",
            "root/rest Answered 200",
        ),
    ),
    Case(
        "one node may be called from two places",
        {
            "root": node("Sequence", to_node("twice"), to_node("twice", Data="$response")),
            "twice": node("Sequence", step("a", Data="$response"), step("b", Data="$response")),
        },
        answer=b"b(a(b(a(x))))",
        trace=(
            "root/0 Answered 200",
            "root/0/0 Answered 200",
            "root/0/1 Answered 200",
            "root/1 Answered 200",
            "root/1/0 Answered 200",
            "root/1/1 Answered 200",
        ),
    ),
    Case(
        "a node is tried again as a whole",
        {
            "root": node("Sequence", to_node("inner", Retries=1)),
            "inner": node("Sequence", step("a", Data="$response"), step("b", Data="$response")),
        },
        {"b": [say("no", 500), WRAP]},
        answer=b"b(a(x))",
        trace=(
            "root/0 Answered 200 x2",
            "root/0/0 Answered 200",
            "root/0/1 Failed 500",
            "root/0/0 Answered 200",
            "root/0/1 Answered 200",
        ),
    ),
    Case(
        "four routers in one graph",
        {
            "root": node("Sequence", step("a", StepName="scale"), to_node("route", Data="$response", StepName="route")),
            "route": node(
                "Switch", to_node("both", Condition="deep", StepName="deep"), to_node("one", StepName="fast")
            ),
            "both": node("Ensemble", step("b", StepName="b"), to_node("one", StepName="any")),
            "one": node("Splitter", step("c", Weight=1), step("d", Weight=0), step("e", Mirror=True)),
        },
        {"a": [say({"deep": True})], "b": [say(1)], "c": [say(2)], "e": [HANG]},
        answer={"b": 1, "any": 2},
        trace=(
            "root/scale Answered 200",
            "root/route Answered 200",
            "root/route/deep Answered 200",
            "root/route/deep/b Answered 200",
            "root/route/deep/any Answered 200",
            "root/route/deep/any/2 Mirrored",
            "root/route/deep/any/0 Answered 200",
        ),
    ),
]

CASES = [*SEQUENCES, *DEPENDENCIES, *SWITCHES, *ENSEMBLES, *SPLITTERS, *TRIES, *MIRRORS, *NESTED]


def summary(steps: list[dict[str, Any]]) -> tuple[str, ...]:
    """Write a trace's steps as cases do: what is the same however fast the containers are."""
    return tuple(_summary(found) for found in steps)


def _summary(found: dict[str, Any]) -> str:
    words = [found["step"], found["state"]]
    words += [str(found["status"])] if "status" in found else []
    words += [f"x{found['attempts']}"] if found.get("attempts", 1) > 1 else []
    return " ".join(words)
