"""Every fault of a graph is found when it is created, and named with its field and remedy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from raymaker.serving.graph.checks import find_faults, most_calls
from raymaker.serving.graph.document import GraphInvalid, Placement, Target, TargetKind, parse_graph
from support.graph_cases import node, step, to_node

A, B = step("a"), step("b")


def faults(nodes: dict[str, Any], hostnames: str = "ab") -> list[str]:
    return find_faults(parse_graph({"Nodes": nodes}), list(hostnames))


def faults_of(router: str, *steps: dict[str, Any]) -> list[str]:
    return faults({"root": node(router, *steps)})


def test_a_sound_graph_has_no_faults() -> None:
    assert faults_of("Sequence", A, step("b", Condition="score > `0.5`", Data="{x: request.x, y: response.y}")) == []


def test_weights_need_no_certain_sum_and_0_takes_a_step_out() -> None:
    assert faults_of("Splitter", step("a", Weight=0.2), step("b", Weight=3), step("b", StepName="out", Weight=0)) == []


@pytest.mark.parametrize(
    ("nodes", "fault"),
    [
        ({"first": node("Sequence", A, B)}, "Nodes has no node root"),
        ({"root": node("Sequence")}, "Nodes.root.Steps is empty"),
        ({"root": node("Sequence", A, to_node("x"))}, "Steps[1].NodeName: there is no node x. Known are root"),
        (
            {"root": node("Sequence", A, step("z"))},
            "Steps[1].ContainerHostname: there is no container z. Known are a, b",
        ),
        ({"root": node("Sequence", A, to_node("root"))}, "root -> root is a cycle"),
        (
            {
                "root": node("Switch", to_node("x")),
                "x": node("Switch", to_node("y")),
                "y": node("Switch", to_node("x")),
            },
            "x -> y -> x is a cycle",
        ),
        ({"root": node("Sequence", A, B), "x": node("Sequence", A)}, "Nodes.x: no step leads to this node"),
        ({"root": node("Sequence", A)}, "Containers[1]: no step of InferenceGraph calls b"),
        ({"root": node("Ensemble", A, step("b", StepName="0"))}, "2 steps are called 0"),
        ({"root": node("Ensemble", step("a", StepName="m"), step("b", StepName="m"))}, "2 steps are called m"),
        ({"root": node("Sequence", A, to_node("x")), "x": node("Ensemble", step("b", Mirror=True))}, "nobody answers"),
        ({"root": node("Splitter", step("a", Weight=1), B)}, "Steps[1].Weight is missing"),
        ({"root": node("Splitter", step("a", Weight=1), step("b", Weight=-1))}, "Weight -1 is negative"),
        ({"root": node("Splitter", step("a", Weight=0), step("b", Weight=0))}, "every Weight is 0"),
        ({"root": node("Sequence", A, step("b", Weight=1))}, "Steps[1].Weight means nothing in a Sequence"),
        ({"root": node("Splitter", step("a", Weight=1), step("b", Weight=1, Mirror=True))}, "nothing on a Mirror"),
        ({"root": node("Switch", A, step("b", Condition="x"))}, "Steps[1] is never reached"),
        ({"root": node("Sequence", A, step("b", Condition="x ==="))}, "Condition x ===: it is no JMESPath expression"),
        ({"root": node("Sequence", A, step("b", Condition="(" * 5000))}, "nested too deeply"),
        ({"root": node("Sequence", A, step("b", Condition="bake(x)"))}, "JMESPath has no function bake()"),
        ({"root": node("Sequence", A, step("b", Condition="request.x && y"))}, "it names request beside y"),
        ({"root": node("Switch", step("a", Condition="response.x"), B)}, "no step comes before another in a Switch"),
        (
            {"root": node("Ensemble", A, step("b", Data="$response"))},
            "Data: no step comes before",
        ),
        ({"root": node("Sequence", A, step("b", Data="$answer"))}, "Data $answer is not known"),
        ({"root": node("Sequence", A, step("b", Data="{"))}, "Data {: it is no JMESPath expression"),
        (
            {"root": node("Sequence", to_node("x", Placement="Colocated")), "x": node("Sequence", A, B)},
            "a node runs nowhere",
        ),
        (
            {
                "root": node(
                    "Sequence",
                    step("a", Placement="Colocated"),
                    step("a", Placement="Distributed", StepName="again"),
                    B,
                )
            },
            "places the container a elsewhere",
        ),
    ],
)
def test_a_fault_is_named(nodes: dict[str, Any], fault: str) -> None:
    assert any(fault in found for found in faults(nodes)), faults(nodes)


@pytest.mark.parametrize("count", [1, 16])
def test_a_graph_has_2_to_15_containers(count: int) -> None:
    names = [f"c{number}" for number in range(count)]
    graph = parse_graph({"Nodes": {"root": node("Ensemble", *(step(name) for name in names))}})
    assert f"calls {count} container" in "".join(find_faults(graph, names))


def test_models_of_their_own_count_as_containers() -> None:
    graph = parse_graph({"Nodes": {"root": node("Sequence", A, step(ModelName="other"))}})
    assert find_faults(graph, ["a"]) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "names nothing to call: give one of ContainerHostname, ModelName, NodeName"),
        ({"ContainerHostname": "a", "NodeName": "n"}, "has ContainerHostname and NodeName: give one of"),
    ],
)
def test_a_step_calls_exactly_one(given: dict[str, Any], said: str) -> None:
    with pytest.raises(GraphInvalid, match=r"Nodes\.root\.Steps\[0\]") as refused:
        parse_graph({"Nodes": {"root": node("Sequence", given)}})
    assert said in str(refused.value)


def test_nodes_that_multiply_are_refused() -> None:
    names = ["root", "n1", "n2", "n3"]
    nodes = {
        name: node("Ensemble", *(to_node(below, StepName=f"s{i}") for i in range(5))) for name, below in pairwise(names)
    }
    nodes["n3"] = node("Ensemble", A, B, step("a"))
    graph = parse_graph({"Nodes": nodes})
    assert most_calls(graph) == 5 * 5 * 5 * 3
    assert any("may make 375 calls for one request" in fault for fault in find_faults(graph, ["a", "b"]))


def test_a_step_may_place_its_container_elsewhere() -> None:
    steps = [A, step("b", Placement="Distributed"), step("b", StepName="again")]
    graph = parse_graph({"Nodes": {"root": node("Sequence", *steps)}})
    assert find_faults(graph, ["a", "b"]) == []
    assert graph.targets() == {
        Target(TargetKind.CONTAINER, "a"): Placement.COLOCATED,
        Target(TargetKind.CONTAINER, "b"): Placement.DISTRIBUTED,
    }
