"""Endpoints of several containers on real Ray Serve: the table of graphs in each placement, and faults under load."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import docker
import pytest
from botocore.exceptions import EventStreamError
from integration.serving.load import THREADS, Load
from integration.serving.serving_cluster import ServeCluster

from raymaker.serving.endpoint import EndpointState
from raymaker.serving.graph.answers import wire_error
from raymaker.serving.graph.document import Graph, Placement, direct_graph, parse_graph, serial_graph
from raymaker.serving.runtime_wire import TRACE_HEADER
from raymaker.serving.spec import EndpointSpec, GraphSpec
from support.faults import eventually
from support.graph_cases import CASES, CONTAINERS, Case, node, summary, to_node
from support.graphs import run_graph

GROUP_SIZE = 10
SESSION = "x-amzn-sagemaker-session-id"
TABLE = [case for case in CASES if not case.is_chance]
PLACES = {case.name: (f"g{index // GROUP_SIZE}", f"c{index}") for index, case in enumerate(TABLE)}
"""Where a case's own graph stands in the graph of all of them: its group, and its place there."""


def spec_of(
    cluster: ServeCluster,
    name: str,
    graph: Graph,
    environments: Mapping[str, dict[str, str]],
    *,
    is_direct: bool = False,
    **scoring: Any,
) -> EndpointSpec:
    """An endpoint of one variant, whose containers have these environments by their hostnames."""
    spec = cluster.spec(name)
    made = {key: cluster.variant("main", environment=value, **scoring) for key, value in environments.items()}
    first = next(iter(made.values()))
    containers = {hostname: variant.scoring for hostname, variant in made.items()}
    variant = dataclasses.replace(first, graph=GraphSpec(containers, graph, is_direct))
    return dataclasses.replace(spec, variants=(variant,))


@contextlib.contextmanager
def deployed(cluster: ServeCluster, spec: EndpointSpec) -> Iterator[str]:
    name = spec.endpoint_name
    cluster.deploy(spec)
    cluster.wait_for(name, EndpointState.HEALTHY)
    yield name
    cluster.delete(name)
    cluster.wait_for(name, EndpointState.MISSING)


def table_document() -> dict[str, Any]:
    """One graph of all cases, of which the session's id chooses one: an endpoint for each would take too long."""
    nodes: dict[str, Any] = {}
    groups: dict[str, list[dict[str, Any]]] = {}
    for case in TABLE:
        group, place = PLACES[case.name]
        groups.setdefault(group, []).append(
            to_node(f"{place}-root", StepName=place, Condition=f"headers.\"{SESSION}\" == '{group}-{place}'")
        )
        for name, made in case.nodes.items():
            steps = [
                {**found, "NodeName": f"{place}-{found['NodeName']}"} if "NodeName" in found else found
                for found in made["Steps"]
            ]
            nodes[f"{place}-{name}"] = {**made, "Steps": steps}
    for group, steps in groups.items():
        nodes[group] = node("Switch", *steps)
    choices = [
        to_node(group, StepName=group, Condition=f"starts_with(headers.\"{SESSION}\", '{group}-')") for group in groups
    ]
    return {"Nodes": {"root": node("Switch", *choices), **nodes}}


@pytest.fixture(scope="module", params=Placement)
def table(cluster: ServeCluster, graph_image: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """An endpoint of all cases in each placement."""
    environments = {name: {"STUB_NAME": name} for name in CONTAINERS}
    graph = parse_graph({**table_document(), "Placement": request.param})
    called = f"table-{request.param}".lower()
    with deployed(cluster, spec_of(cluster, called, graph, environments, image=graph_image)) as name:
        yield name


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_an_endpoint_answers_as_the_table_of_graphs_says(cluster: ServeCluster, table: str, case: Case) -> None:
    group, place = PLACES[case.name]
    own = f"root/{group}/{place}"
    asked = case.request(uuid.uuid4().hex)
    headers = {name.decode(): value.decode() for name, value in asked.headers}
    headers |= {SESSION: f"{group}-{place}", TRACE_HEADER.decode(): "1"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=60)) as connection:
        connection.request("POST", f"/endpoints/{table}/invocations", asked.body, headers)
        answer = connection.getresponse()
        body = answer.read()
    steps = json.loads(answer.headers[TRACE_HEADER.decode()])["steps"]
    steps = [{**found, "step": found["step"].replace(own, "root")} for found in steps if f"{own}/" in found["step"]]
    assert summary(steps) == case.trace
    if case.failed_step:
        expected = wire_error(run_graph(parse_graph(case.document), case))
        said = json.loads(body)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (
            expected.status,
            dict(expected.headers)[b"x-amzn-errortype"].decode(),
        )
        assert said.get("OriginalStatusCode", 400) == case.status
        assert f" {own}{case.failed_step.removeprefix('root')}" in said["Message"]
        return
    assert answer.status == case.status
    assert (body if isinstance(case.answer, bytes) else json.loads(body)) == case.answer
    if case.answer_type is not None:
        assert answer.headers["content-type"] == case.answer_type


def test_a_pipeline_loses_only_what_a_killed_container_held_and_nothing_when_its_containers_move_apart(
    cluster: ServeCluster, engine: docker.DockerClient
) -> None:
    def running(*labels: str) -> list[str]:
        wanted = {"label": cluster.labels("pipeline", *labels)}
        return [container.id for container in engine.containers.list(filters=wanted, ignore_removed=True)]

    def kill_one(load: Load, label: str, other_label: str) -> None:
        (victim,), others = running(label), running(other_label)
        engine.containers.get(victim).kill("SIGKILL")
        eventually(lambda: running(label) not in ([], [victim]), "another container")
        load.count(100)
        lost = load.take_failures()
        assert len(lost) <= THREADS, lost
        assert all("Step root/first (container first)" in failure for failure in lost)
        assert running(other_label) == others

    graph = serial_graph(["first", "second"])
    together = spec_of(cluster, "pipeline", graph, {"first": {"VERSION": "one"}, "second": {"VERSION": "two"}})
    moved = dataclasses.replace(graph, placement=Placement.DISTRIBUTED)
    apart = spec_of(cluster, "pipeline", moved, {"first": {"VERSION": "one"}, "second": {"VERSION": "three"}})
    apart = dataclasses.replace(apart, generation=2, revision=2)
    with deployed(cluster, together) as name, Load(cluster.port, name) as load:
        assert set(load.count(100)) == {b"two"}
        assert load.take_failures() == []
        kill_one(load, "raymaker.container=first", "raymaker.container=second")
        for front, beside, answers in (
            (together, (apart,), b"two"),
            (apart, (together,), b"three"),
            (apart, (), b"three"),
        ):
            cluster.deploy(front, *beside)
            cluster.wait_for(name, EndpointState.HEALTHY)
            load.wait_for(answers)
        assert load.take_failures() == []
        eventually(lambda: len(running()) == 2, "only the containers apart are left")
        kill_one(load, "raymaker.variant=main.first", "raymaker.variant=main.second")
    told = [report["message"] for report in cluster.reporter.read() if "container ended" in report.get("message", "")]
    assert any("/first: " in message for message in told)


@pytest.mark.parametrize("placement", Placement)
def test_a_request_names_its_container_where_the_mode_is_direct(cluster: ServeCluster, placement: Placement) -> None:
    environments = {"first": {"VERSION": "one"}, "second": {"VERSION": "two"}}
    graph = dataclasses.replace(direct_graph(list(environments)), placement=placement)
    spec = spec_of(cluster, f"direct-{placement.value.lower()}", graph, environments, is_direct=True)
    with deployed(cluster, spec) as name, contextlib.closing(cluster.client()) as runtime:
        asked = {"EndpointName": name, "Body": b"x", "CustomAttributes": "version"}
        for hostname, answer in (("first", b"one"), ("second", b"two")):
            assert runtime.invoke_endpoint(**asked, TargetContainerHostname=hostname)["Body"].read() == answer
        with pytest.raises(runtime.exceptions.ValidationError, match="third is unknown: .* first, second"):
            runtime.invoke_endpoint(**asked, TargetContainerHostname="third")
        with pytest.raises(runtime.exceptions.ValidationError, match="TargetContainerHostname is missing"):
            runtime.invoke_endpoint(**asked)
        with pytest.raises(runtime.exceptions.ModelError, match=r"Step root/first \(container first\)") as caught:
            runtime.invoke_endpoint(**{**asked, "CustomAttributes": "status 500"}, TargetContainerHostname="first")
        assert caught.value.response["OriginalMessage"] == "the model says no"
        assert "first/" in caught.value.response["LogStreamArn"] + "/"
        pieces_arrive_while_the_model_is_still_speaking(runtime, name)


def pieces_arrive_while_the_model_is_still_speaking(runtime: Any, name: str) -> None:
    def stream(asked: str) -> Any:
        return runtime.invoke_endpoint_with_response_stream(
            EndpointName=name, Body=b"x", CustomAttributes=asked, TargetContainerHostname="second"
        )["Body"]

    def bytes_of(events: Any) -> bytes:
        return b"".join(event["PayloadPart"]["Bytes"] for event in events)

    with contextlib.closing(stream("stream 3 10 0.5")) as body:
        events = iter(body)
        assert next(events)["PayloadPart"]["Bytes"] == b"0" * 10
        asked = {"EndpointName": name, "Body": b"x", "CustomAttributes": "sent", "TargetContainerHostname": "second"}
        sent = runtime.invoke_endpoint(**asked)["Body"].read()
        assert sent in {b"1", b"2"}, "the first piece was here before the last was sent"
        assert bytes_of(events) == b"1" * 10 + b"2" * 10
    with contextlib.closing(stream("break 2 10")) as body, pytest.raises(EventStreamError, match="container second"):
        bytes_of(body)
    with pytest.raises(runtime.exceptions.ModelError, match=r"Step root/second \(container second\)") as caught:
        stream("status 507")
    assert caught.value.response["OriginalStatusCode"] == 507
