"""What CreateModel checks of several containers, and what DescribeModel draws."""

from __future__ import annotations

import dataclasses

import pytest

from raymaker.actors.spec import ScoringSpec
from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting.hosting_specs import graph_spec
from raymaker.platform.operations.inference_graphs import (
    check_expanded,
    container_hostnames,
    describe_drawing,
    execution_mode,
    expand_graph,
    models_called,
    read_graph,
)
from raymaker.platform.records import ResolvedContainer, ResolvedVariant
from raymaker.platform.shapes import operation_model
from raymaker.platform.validation import validate
from raymaker.serving.graph.document import ROOT, Placement, RouterType, Target, TargetKind, parse_graph
from raymaker.serving.scaling import ScalingSpec
from support.graph_cases import CASES, CONTAINERS, node, step

ROLE = "arn:aws:iam::123456789012:role/anyone"
CHAIN = {"Nodes": {"root": node("Sequence", step("a"), step("b"))}}


def containers(*hostnames):
    return [{"ContainerHostname": name, "Image": "i"} for name in hostnames]


def request(**fields):
    """A request as the service model lets it through."""
    model = operation_model("sagemaker", "CreateModel")
    return validate(model, {"ModelName": "m", "ExecutionRoleArn": ROLE, **fields})


def refused(**fields):
    with pytest.raises(ValidationException) as caught:
        read_graph(request(**fields))
    return caught.value.message


def test_one_container_makes_no_graph():
    assert read_graph(request(PrimaryContainer={"Image": "i"})) is None
    assert read_graph(request(Containers=[{"Image": "i"}])) is None


def test_several_containers_are_serial_unless_the_request_says_direct():
    serial = read_graph(request(Containers=[{"Image": "i"}, {"Image": "j"}]))
    assert serial.nodes[ROOT].router is RouterType.SEQUENCE
    assert [found.label for found in serial.steps()] == ["container-1", "container-2"]
    asked = request(Containers=containers("a", "b"), InferenceExecutionConfig={"Mode": "Direct"})
    assert execution_mode(asked) == "Direct"
    assert read_graph(asked).nodes[ROOT].router is RouterType.SWITCH


def test_a_graph_is_read_with_its_placement_and_the_models_it_calls():
    nodes = {"root": node("Sequence", step("a"), step(ModelName="other-model", Retries=2, TimeoutInSeconds=5))}
    asked = request(Containers=containers("a"), InferenceGraph={"Placement": "Distributed", "Nodes": nodes})
    graph = read_graph(asked)
    assert graph.placement is Placement.DISTRIBUTED
    assert models_called(asked) == ["other-model"]
    assert [(found.retry_count, found.timeout_s) for found in graph.steps()] == [(0, None), (2, 5)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_graphs_of_the_table_fit_the_shapes(case):
    request(Containers=containers(*CONTAINERS), InferenceGraph=case.document)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"PrimaryContainer": {"Image": "i"}, "InferenceGraph": CHAIN}, "PrimaryContainer goes with no InferenceGraph"),
        (
            {
                "Containers": containers("a", "b"),
                "InferenceGraph": CHAIN,
                "InferenceExecutionConfig": {"Mode": "Serial"},
            },
            "InferenceExecutionConfig and InferenceGraph both say",
        ),
        ({"Containers": [{"Image": "i"}, {"Image": "j"}], "InferenceGraph": CHAIN}, "Containers[0].ContainerHostname"),
        (
            {"Containers": [{"Image": "i"}, {"Image": "j"}], "InferenceExecutionConfig": {"Mode": "Direct"}},
            "it goes with InferenceExecutionConfig.Mode Direct",
        ),
        ({"Containers": [*containers("a"), {"Image": "i"}]}, "Containers[1].ContainerHostname is missing"),
        ({"Containers": containers("a", "b", "a")}, "Containers[2].ContainerHostname a is taken by Containers[0]"),
        ({"Containers": containers("a", "c"), "InferenceGraph": CHAIN}, "Steps[1].ContainerHostname: there is no"),
        (
            {"Containers": containers("a"), "InferenceGraph": {"Nodes": {"root": node("Sequence", {})}}},
            "InferenceGraph.Nodes.root.Steps[0] names nothing to call",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(fields, said):
    assert said in refused(**fields)


def test_every_fault_is_told_at_once_but_no_more_than_help():
    one = refused(
        Containers=containers("a", "b"),
        InferenceGraph={"Nodes": {"root": node("Sequence", step("a", Weight=1), step("b", Condition="&&"))}},
    )
    assert "Steps[0].Weight means nothing" in one
    assert "Steps[1].Condition &&" in one
    many = [step("a", StepName=f"s{number}", Weight=1) for number in range(20)]
    assert "and 10 more faults" in refused(
        Containers=containers("a", "b"), InferenceGraph={"Nodes": {"root": node("Sequence", *many, step("b"))}}
    )


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"Weight": -1}, "weight"),
        ({"Retries": 11}, "retries"),
        ({"TimeoutInSeconds": 0}, "timeoutInSeconds"),
        ({"StepName": "two words"}, "stepName"),
        ({"Dependency": "Firm"}, "dependency"),
    ],
)
def test_the_shapes_bound_what_a_step_may_say(fields, at):
    with pytest.raises(ValidationException, match=rf"inferenceGraph\.nodes\.root\.steps\.1\.member\.{at}"):
        request(
            Containers=containers("a", "b"), InferenceGraph={"Nodes": {"root": node("Sequence", step("a", **fields))}}
        )


def test_names_by_place_are_valid_hostnames():
    names = container_hostnames([{}] * 15)
    assert names[-1] == "container-15"
    request(Containers=containers(*names))


def test_a_drawing_fits_the_answers_shape():
    drawn = describe_drawing(read_graph(request(Containers=containers("a", "b"), InferenceGraph=CHAIN)))
    output = operation_model("sagemaker", "DescribeModel").output_shape
    assert drawn["InferenceGraphDrawing"].keys() == output.members["InferenceGraphDrawing"].members.keys()
    assert drawn["InferenceGraphDrawing"]["Mermaid"].startswith("flowchart LR")
    assert drawn["InferenceGraphDrawing"]["Svg"].startswith("<svg")


def placements(document, called):
    """Where each container of an expanded graph runs."""
    graph = parse_graph(expand_graph(document, called))
    assert {target.kind for target in graph.targets()} <= {TargetKind.CONTAINER, TargetKind.MODEL}
    return {target.name: str(place) for target, place in graph.targets().items()}


PAIR = {"Containers": containers("a", "b")}
GRAPH_OF_ITS_OWN = {
    "Containers": containers("a", "b", "c"),
    "InferenceGraph": {
        "Nodes": {
            "root": node("Sequence", step("a"), step(NodeName="more", Data="$response")),
            "more": node("Ensemble", step("b", Placement="Colocated"), step("c")),
        }
    },
}


def test_a_model_of_several_containers_becomes_a_node_and_each_caller_keeps_what_it_says():
    nodes = {
        "root": node("Sequence", step("a"), step(ModelName="m", Retries=2, Placement="Colocated"), step(ModelName="p")),
        "again": node("Switch", step(ModelName="m", Condition="request.x", StepName="s", Placement="Colocated")),
    }
    graph = parse_graph(expand_graph({"Nodes": nodes}, {"m": PAIR}))
    called = [step for step in graph.steps() if step.target == Target(TargetKind.NODE, "m.root")]
    assert [(step.label, step.retry_count, step.condition, step.placement) for step in called] == [
        ("1", 2, "", None),
        ("s", 0, "request.x", None),
    ]
    inner = graph.nodes["m.root"]
    assert (inner.router, [step.target.name for step in inner.steps]) == (RouterType.SEQUENCE, ["m.a", "m.b"])
    assert {step.data for step in inner.steps} == {"$response"}
    assert Target(TargetKind.MODEL, "p") in graph.targets()


def test_containers_of_a_called_model_run_where_it_says_else_where_its_caller_does():
    def calling(**more):
        return {"Nodes": {"root": node("Sequence", step("x"), step(ModelName="m", **more))}}

    assert placements(calling(), {"m": PAIR}) == {"x": "Colocated", "m.a": "Colocated", "m.b": "Colocated"}
    apart = placements(calling(Placement="Distributed"), {"m": PAIR})
    assert apart == {"x": "Colocated", "m.a": "Distributed", "m.b": "Distributed"}
    apart = placements({**calling(), "Placement": "Distributed"}, {"m": GRAPH_OF_ITS_OWN})
    assert apart == {"x": "Distributed", "m.a": "Distributed", "m.b": "Colocated", "m.c": "Distributed"}
    own = {**GRAPH_OF_ITS_OWN, "InferenceGraph": {**GRAPH_OF_ITS_OWN["InferenceGraph"], "Placement": "Colocated"}}
    together = placements({**calling(), "Placement": "Distributed"}, {"m": own})
    assert together == {"x": "Distributed", "m.a": "Colocated", "m.b": "Colocated", "m.c": "Colocated"}


def scaled(**scaling):
    return step("b", Placement="Distributed", InstanceScaling=scaling)


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ([step("a"), step("b", InstanceScaling={})], "the container b runs with its variant's others"),
        ([step("a"), scaled(MinInstanceCount=3, MaxInstanceCount=2)], "MaxInstanceCount 2 is below MinInstanceCount 3"),
        (
            [step("a"), scaled(MaxInstanceCount=2), {**scaled(MaxInstanceCount=3), "StepName": "again"}],
            r"root.Steps[2].InstanceScaling: another step scales the container b otherwise",
        ),
    ],
)
def test_a_step_that_cannot_be_scaled_as_it_says_is_refused(steps, fault):
    nodes = {"root": node("Sequence", *steps)}
    assert fault in refused(Containers=containers("a", "b"), InferenceGraph={"Nodes": nodes})


def test_a_node_and_a_model_of_several_containers_are_scaled_by_their_own_steps():
    nodes = {"root": node("Sequence", {"NodeName": "n", "InstanceScaling": {}}), "n": CHAIN["Nodes"]["root"]}
    assert "a node has no instances" in refused(Containers=containers("a", "b"), InferenceGraph={"Nodes": nodes})
    nodes = {"root": node("Sequence", step("x"), step(ModelName="m", Placement="Distributed", InstanceScaling={}))}
    with pytest.raises(ValidationException, match="the model m has several containers"):
        check_expanded(request(Containers=containers("x"), InferenceGraph={"Nodes": nodes}), {"m": PAIR})


def test_a_steps_scaling_is_that_of_the_fleet_of_its_container():
    steps = [step("a"), scaled(MinInstanceCount=2, MaxInstanceCount=4, TargetConcurrency=1, ScaleInDelayInSeconds=9)]
    asked = request(Containers=containers("a", "b"), InferenceGraph={"Nodes": {"root": node("Sequence", *steps)}})
    read_graph(asked)
    resolved = tuple(ResolvedContainer("i", hostname=name) for name in "ab")
    variant = ResolvedVariant({"VariantName": "v"}, "m", resolved, inference_graph=asked["InferenceGraph"])
    spec = graph_spec(variant, [ScoringSpec(), ScoringSpec()])
    assert spec.scalings == {"b": ScalingSpec(2, 4, 1, scale_in_delay_s=9)}
    fixed = {"Nodes": {"root": node("Sequence", step("a"), scaled(MinInstanceCount=2))}}
    spec = graph_spec(dataclasses.replace(variant, inference_graph=fixed), [ScoringSpec(), ScoringSpec()])
    assert (spec.scalings["b"].min_count, spec.scalings["b"].max_count) == (2, 2)
