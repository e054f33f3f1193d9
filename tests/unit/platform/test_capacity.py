"""Resources in sums: what is needed, what is left, and how many instances nodes could hold."""

from __future__ import annotations

import pytest

from raymaker.actors.spec import InstanceType, Resources, TrainingSpec
from raymaker.platform.capacity import count_that_fit, describe_nodes, resources_needed, shortage, subtract

GIB = 2**30


def spec(count: int, least: int | None = None) -> TrainingSpec:
    kind = InstanceType("type", Resources(2, 4 * GIB, 1))
    return TrainingSpec(
        "job", "arn:job", "here", 1, kind, "file:///out", instance_count=count, min_instance_count=least
    )


@pytest.mark.parametrize(("count", "least", "together"), [(1, None, 1), (3, None, 3), (4, 2, 2)])
def test_a_job_needs_all_its_instances_and_an_elastic_one_the_fewest(count, least, together):
    assert resources_needed(spec(count, least)) == Resources(2 * together, 4 * GIB * together, together)


def test_a_shortage_names_each_kind_that_is_missing():
    left = subtract(Resources(1, GIB, 0), Resources(2, 2 * GIB, 1))
    assert shortage(left) == "1 CPUs, 1.0 GiB of memory, 1 GPUs"
    assert shortage(Resources(0, 0, 0)) == ""


def test_what_comes_from_adding_floats_is_no_shortage():
    left = Resources(0.3)
    for _ in range(3):
        left = subtract(left, Resources(0.1))
    assert left.cpus != 0
    assert shortage(left) == ""


@pytest.mark.parametrize(
    ("nodes", "needed", "expected"),
    [
        ([], Resources(1), 0),
        ([Resources(4, 8 * GIB)], Resources(1, GIB), 4),
        ([Resources(4, 2 * GIB)], Resources(1, GIB), 2),
        ([Resources(4, 8 * GIB)], Resources(1, GIB, 1), 0),
        ([Resources(3, 8 * GIB), Resources(3, 8 * GIB)], Resources(2, GIB), 2),
        ([Resources(16, 64 * GIB), Resources(1, 64 * GIB, 4)], Resources(2, GIB, 1), 0),
        ([Resources(4)], Resources(1, GIB), 4),
        ([Resources(0.3)], Resources(0.1), 3),
        ([Resources(8, 8 * GIB, 1)], Resources(1, GIB, 0.5), 2),
    ],
)
def test_instances_are_counted_on_each_node_by_what_it_has_least_of(nodes, needed, expected):
    assert count_that_fit(nodes, needed) == expected


def test_nodes_that_are_alike_are_told_together_and_many_kinds_are_cut_short():
    assert describe_nodes([Resources(4, GIB), Resources(2), Resources(4, GIB)]) == (
        "2 nodes of 4 CPUs, 1.0 GiB of memory; 1 node of 2 CPUs"
    )
    assert describe_nodes([Resources(float(cpus)) for cpus in range(1, 9)]).endswith("1 node of 5 CPUs; 3 other nodes")
