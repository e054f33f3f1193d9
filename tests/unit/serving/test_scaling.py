"""How a variant's bounds are told to Serve, and when an endpoint may sleep."""

from __future__ import annotations

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.scaling import ScalingSpec, replica_options
from raymaker.serving.spec import EndpointSpec, VariantSpec


def variant(name: str, scaling: ScalingSpec | None) -> VariantSpec:
    return VariantSpec(name, 1, InstanceType("local", Resources()), ScoringSpec(), scaling=scaling)


def endpoint(*scalings: ScalingSpec | None) -> EndpointSpec:
    return EndpointSpec("e", "c", 1, tuple(variant(f"v{number}", each) for number, each in enumerate(scalings)))


def test_a_variant_that_is_not_scaled_has_always_as_many() -> None:
    assert replica_options(3, None) == {"num_replicas": 3}


def test_a_scaled_variant_begins_within_its_bounds_and_has_one_at_least_while_it_is_awake() -> None:
    def counts(first: int, least: int, most: int) -> tuple[int, int, int]:
        config = replica_options(first, ScalingSpec(least, most))["autoscaling_config"]
        return config["min_replicas"], config["initial_replicas"], config["max_replicas"]

    assert counts(2, 1, 4) == (1, 2, 4)
    assert counts(1, 0, 4) == (1, 1, 4)
    assert counts(9, 2, 4) == (2, 4, 4)


def test_an_endpoint_may_sleep_only_where_all_its_variants_may_be_at_zero() -> None:
    assert endpoint(ScalingSpec(0, 1, idle_s=5), ScalingSpec(0, 2, idle_s=9)).idle_s == 9
    assert endpoint(ScalingSpec(0, 1), ScalingSpec(1, 2)).idle_s is None
    assert endpoint(ScalingSpec(0, 1), None).idle_s is None
