"""What replicas of a variant of several containers hold, and which of them have fleets of their own."""

from __future__ import annotations

import dataclasses

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.graph.document import parse_graph, serial_graph
from raymaker.serving.scaling import ScalingSpec
from raymaker.serving.spec import EndpointSpec, GraphSpec, VariantSpec
from support.graph_cases import node, step

INSTANCE = InstanceType("local", Resources(4, 8, 2))
SCORINGS = {name: ScoringSpec(image=name, max_body_bytes=10) for name in ("a", "b")}


def endpoint(graph: GraphSpec | None) -> EndpointSpec:
    return EndpointSpec("e", "c", 1, (VariantSpec("v", 1, INSTANCE, SCORINGS["a"], graph=graph),))


def apart(*hostnames: str) -> GraphSpec:
    steps = [step(name, **({"Placement": "Distributed"} if name in hostnames else {})) for name in SCORINGS]
    return GraphSpec(SCORINGS, parse_graph({"Nodes": {"root": node("Sequence", *steps)}}))


def test_colocated_containers_are_all_of_the_replica_and_have_its_whole_instance() -> None:
    spec = endpoint(GraphSpec(SCORINGS, serial_graph(["a", "b"])))
    (variant,) = spec.variants
    assert (spec.is_simple, spec.fleets, dict(variant.parts)) == (True, (), {})
    assert (list(variant.scorings), variant.resources) == (["a", "b"], Resources(4, 8, 2))


def test_one_container_is_the_replicas_own_without_a_name() -> None:
    (variant,) = endpoint(None).variants
    assert (dict(variant.scorings), variant.resources) == ({None: SCORINGS["a"]}, Resources(4, 8, 2))


def test_a_container_apart_has_a_fleet_with_its_share_in_front_of_its_variants_own() -> None:
    spec = endpoint(apart("b"))
    (variant,) = spec.variants
    assert not spec.is_simple
    assert [spec.fleet_name(fleet) for fleet in spec.fleets] == ["v.b@1", "v@1"]
    part = variant.parts["b"]
    assert (part.scoring.image, part.graph, part.resources) == ("b", None, Resources(2, 4, 1))
    assert part.scoring.max_body_bytes > 10
    assert (list(variant.scorings), variant.resources) == (["a"], Resources(2, 4, 1))


def test_where_all_are_apart_the_variant_has_no_replicas_and_the_front_runs_its_graph() -> None:
    spec = endpoint(apart("a", "b"))
    (variant,) = spec.variants
    assert (dict(variant.scorings), list(variant.parts)) == ({}, ["a", "b"])
    assert [spec.fleet_name(fleet) for fleet in spec.fleets] == ["v.a@1", "v.b@1"]
    assert (variant.is_apart, spec.apart) == (True, (variant,))


def test_the_variants_with_replicas_of_their_own_are_not_for_the_front_to_run() -> None:
    for graph in (None, apart("b"), GraphSpec(SCORINGS, serial_graph(["a", "b"]))):
        assert endpoint(graph).apart == ()


def test_instances_are_counted_by_the_variants_replicas_or_by_what_it_has_apart_and_scales_with_it() -> None:
    def counted(graph: GraphSpec | None) -> list[str]:
        spec = endpoint(graph)
        return spec.instances_of(spec.variants[0])

    assert counted(None) == ["front"]
    assert counted(apart("b")) == ["v@1"]
    assert counted(apart("a", "b")) == ["v.a@1", "v.b@1"]
    own = ScalingSpec(3, 5, 1.5)
    assert counted(dataclasses.replace(apart("a", "b"), scalings={"b": own})) == ["v.a@1"]
    assert counted(dataclasses.replace(apart("a", "b"), scalings={"a": own, "b": own})) == ["v.a@1", "v.b@1"]


def test_a_container_apart_is_scaled_as_its_variant_or_as_its_step_says() -> None:
    graph = dataclasses.replace(apart("a", "b"), scalings={"b": ScalingSpec(3, 5, 1.5)})
    (variant,) = endpoint(graph).variants
    variant = dataclasses.replace(variant, replica_count=2, scaling=ScalingSpec(1, 9))
    counts = {name: (part.replica_count, part.scaling) for name, part in variant.parts.items()}
    assert counts == {"a": (2, ScalingSpec(1, 9)), "b": (3, ScalingSpec(3, 5, 1.5))}
