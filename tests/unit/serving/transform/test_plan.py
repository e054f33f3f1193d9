"""Which objects a machine transforms, and how far it says it is."""

from __future__ import annotations

import dataclasses

import pytest

from raymaker.actors.errors import ArchiveError
from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.actors.storage import ObjectInfo
from raymaker.serving.transform.plan import plan_tasks
from raymaker.serving.transform.reports import Finished, Progress
from raymaker.serving.transform.spec import TransformInput, TransformOutput, TransformSpec
from raymaker.serving.transform.tally import Tally

SPEC = TransformSpec(
    "job",
    "arn",
    1,
    InstanceType("local", Resources()),
    ScoringSpec(image="i"),
    TransformInput("s3://b/in/"),
    TransformOutput("s3://b/out/"),
)


def objects(**sizes: int) -> list[ObjectInfo]:
    return [ObjectInfo(f"s3://b/in/{name}", name, size) for name, size in sizes.items()]


def test_each_object_has_an_output_of_its_own_below_the_output_path():
    found = plan_tasks([ObjectInfo("s3://b/in/x/a.csv", "x/a.csv", 3), ObjectInfo("s3://b/in/b", "b", 1)], SPEC)
    assert [(task.name, task.output_uri) for task in found] == [
        ("b", "s3://b/out/b.out"),
        ("x/a.csv", "s3://b/out/x/a.csv.out"),
    ]


def test_an_object_that_is_named_twice_is_transformed_once():
    assert len(plan_tasks([*objects(a=1), *objects(a=1)], SPEC)) == 1


def test_a_name_that_leads_out_of_the_output_path_is_refused():
    with pytest.raises(ArchiveError, match="leads out"):
        plan_tasks([ObjectInfo("s3://b/in/../x", "../x", 3)], SPEC)


def test_machines_share_all_objects_by_bytes():
    found = objects(a=100, b=1, c=1, d=98)
    shares = [
        [task.name for task in plan_tasks(found, dataclasses.replace(SPEC, machine_index=index, machine_count=2))]
        for index in range(2)
    ]
    assert sorted(name for share in shares for name in share) == ["a", "b", "c", "d"]
    assert all(len(share) == 2 for share in shares)
    assert not any({"a", "d"} <= set(share) for share in shares)


def test_a_machine_without_objects_has_nothing_to_do():
    assert plan_tasks(objects(a=1), dataclasses.replace(SPEC, machine_index=2, machine_count=3)) == []


def test_what_is_through_and_what_is_under_way_are_counted_together():
    tally = Tally(4, [Finished("a", 10, 100, 50)])
    tally.advance(Finished("b", 2, 20, 10))
    tally.advance(Finished("b", 3, 30, 15))
    assert tally.progress == Progress(4, 1, 0, 13, 130, 65)
    tally.finish(Finished("b", 5, 50, 25))
    tally.finish(Finished("c", failure="no"))
    assert tally.progress == Progress(4, 2, 1, 15, 150, 75)
    assert [item.name for item in tally.take_unreported()] == ["b", "c"]
    assert tally.take_unreported() == ()


def test_progress_is_told_in_words():
    told = Progress(4, 2, 1, 15, 2**20, 2**19).describe()
    assert told == "3 of 4 objects (1 failed), 15 records, 1.0 MiB in, 0.5 MiB out"
