"""Which variant a request goes to, given the number that was drawn for it."""

from __future__ import annotations

import pytest

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.spec import EndpointSpec, VariantSpec
from raymaker.serving.variants import Route, Splitter, TrafficTable, traffic_between, traffic_of


def table(*weights: float, shadows: tuple[float, ...] = ()) -> TrafficTable:
    """Variants a, b, … of these weights, and shadows s0, s1, … of these shares."""
    names = "abcdefgh"
    routes = tuple(Route(names[n], f"{names[n]}@1", weight, 60.0) for n, weight in enumerate(weights))
    return TrafficTable(routes, tuple(Route(f"s{n}", f"s{n}@1", share, 60.0) for n, share in enumerate(shadows)))


def variant(name: str, weight: float) -> VariantSpec:
    return VariantSpec(name, 1, InstanceType("local", Resources()), ScoringSpec(), weight)


def chosen(split: Splitter, number: float, wanted: str | None = None) -> str | None:
    route = split.choose(number, wanted)
    return route.variant if route else None


@pytest.mark.parametrize(
    ("weights", "numbers", "expected"),
    [
        ((1.0,), (0.0, 0.5, 1.0), "aaa"),
        ((90, 10), (0.0, 0.8999, 0.9, 0.999999), "aabb"),
        ((0, 100), (0.0, 0.5), "bb"),
        ((1, 0, 1), (0.0, 0.4999, 0.5, 1.0), "aacc"),
        ((0, 1, 0), (0.0, 1.0), "bb"),
        ((0.1, 0.2), (0.33, 0.34), "ab"),
    ],
)
def test_each_number_falls_on_a_variant_as_wide_as_its_weight(weights, numbers, expected):
    split = Splitter(table(*weights))
    assert "".join(chosen(split, number) or "-" for number in numbers) == expected


def test_traffic_is_split_as_the_weights_say():
    split = Splitter(table(90, 10))
    hits = [chosen(split, number / 1000) for number in range(1000)]
    assert (hits.count("a"), hits.count("b")) == (900, 100)


def test_no_variant_takes_traffic_where_all_weights_are_0():
    assert chosen(Splitter(table(0, 0)), 0.5) is None
    assert chosen(Splitter(TrafficTable(())), 0.5) is None


def test_a_variant_that_is_wanted_answers_whatever_its_weight():
    split = Splitter(table(1, 0))
    assert chosen(split, 0.0, "b") == "b"
    assert chosen(split, 0.9, "a") == "a"
    assert chosen(split, 0.9, "x") is None


def test_a_variant_with_two_fleets_shares_what_is_its_own_among_them():
    old, new = Route("a", "a@1", 3, 60.0), Route("a", "a@2", 1, 60.0)
    split = Splitter(TrafficTable((old, new)))
    assert [split.choose(n, "a") for n in (0.74, 0.76)] == [old, new]


@pytest.mark.parametrize(("number", "expected"), [(0.0, ["s0", "s2"]), (0.3, ["s2"]), (0.9999, ["s2"])])
def test_each_shadow_hears_its_share(number, expected):
    split = Splitter(table(1, shadows=(0.25, 0.0, 1.0)))
    assert [shadow.variant for shadow in split.shadows(number)] == expected


def test_a_table_crosses_as_plain_values():
    whole = table(90, 10, shadows=(0.5,))
    assert TrafficTable.from_config(whole.as_config()) == whole


def test_an_endpoints_table_names_its_fleets_and_counts_shadows_against_the_variants():
    spec = EndpointSpec("e", "c", 3, (variant("a", 3), variant("b", 1)), (variant("s", 1), variant("t", 9)), revision=2)
    made = traffic_of(spec)
    assert made.routes == (Route("a", "a@2", 3, 60.0), Route("b", "b@2", 1, 60.0))
    assert [(shadow.fleet, shadow.weight) for shadow in made.shadows] == [("s@2", 0.25), ("t@2", 1.0)]


def endpoint(revision: int, weights: dict[str, float], shadows: dict[str, float] | None = None) -> EndpointSpec:
    made = [tuple(variant(*each) for each in of.items()) for of in (weights, shadows or {})]
    return EndpointSpec("e", "c", revision, made[0], made[1], revision=revision, is_routed=True)


def test_a_share_of_the_traffic_goes_to_the_new_variants_whatever_their_weights_add_up_to():
    table = traffic_between(endpoint(2, {"a": 3, "b": 1}), endpoint(1, {"a": 700}), 0.2)
    weights = {route.fleet: route.weight for route in table.routes}
    assert weights == pytest.approx({"a@2": 0.15, "b@2": 0.05, "a@1": 0.8})
    split = Splitter(table)
    hits = [split.choose(number / 1000).fleet for number in range(1000)]
    assert [hits.count(fleet) for fleet in ("a@2", "b@2", "a@1")] == pytest.approx([150, 50, 800], abs=1)
    wanted = [split.choose(number / 95, "a").fleet for number in range(95)]
    assert wanted.count("a@2") == pytest.approx(15, abs=1), "who asks for a variant by name is split too"
    assert split.choose(0.5, "b").fleet == "b@2"


def test_shadows_stay_the_old_ones_until_all_traffic_has_moved():
    new, old = endpoint(2, {"a": 1}, {"n": 1}), endpoint(1, {"a": 1}, {"o": 0.5})
    assert [shadow.fleet for shadow in traffic_between(new, old, 0.5).shadows] == ["o@1"]
    assert [shadow.fleet for shadow in traffic_between(new, old, 1.0).shadows] == ["n@2"]


def test_a_deployment_whose_weights_are_all_0_takes_no_share():
    split = Splitter(traffic_between(endpoint(2, {"a": 0}), endpoint(1, {"a": 1}), 0.5))
    assert {split.choose(number / 10).fleet for number in range(10)} == {"a@1"}
