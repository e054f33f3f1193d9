"""Who gets what of a channel: fair, complete, and the same each time."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from raymaker.actors.channels.sharding import deal_objects, divide_records


def loads(sizes: Mapping[str, int], shards: list[list[str]]) -> list[int]:
    return [sum(sizes[name] for name in names) for names in shards]


def some_sizes(seed: int) -> dict[str, int]:
    chance = random.Random(seed)
    spread = chance.choice([0.1, 1.0, 3.0])
    return {f"part-{n}": int(chance.lognormvariate(8, spread)) for n in range(chance.randint(6, 60))}


@pytest.mark.parametrize("shard_count", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(20))
def test_every_object_goes_to_one_shard_and_shards_differ_by_one_object_and_the_largest_objects_bytes(
    seed: int, shard_count: int
) -> None:
    sizes = some_sizes(seed)
    shards = deal_objects(sizes, shard_count)
    assert sorted(name for names in shards for name in names) == sorted(sizes)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert max(loads(sizes, shards)) - min(loads(sizes, shards)) <= max(sizes.values())


def test_bytes_are_balanced_where_names_in_turn_would_not_be() -> None:
    sizes = {"a": 100, "b": 1, "c": 90, "d": 2, "e": 80, "f": 3}
    shards = deal_objects(sizes, 2)
    assert [len(names) for names in shards] == [3, 3]
    assert loads(sizes, shards) == [105, 171]


def test_one_huge_object_does_not_take_the_others_fair_count_away() -> None:
    sizes = {"huge": 10**9, **{f"small-{n}": 10 for n in range(5)}}
    assert [len(names) for names in deal_objects(sizes, 2)] == [3, 3]


@pytest.mark.parametrize("seed", range(5))
def test_the_split_does_not_depend_on_the_order_of_the_listing(seed: int) -> None:
    sizes = some_sizes(seed)
    shuffled = list(sizes.items())
    random.Random(seed).shuffle(shuffled)
    assert deal_objects(dict(shuffled), 3) == deal_objects(sizes, 3)


def test_equal_sizes_are_dealt_by_name_and_come_sorted() -> None:
    assert deal_objects({"c": 1, "a": 1, "d": 1, "b": 1}, 2) == [["a", "c"], ["b", "d"]]


def test_objects_of_no_bytes_are_dealt_out_too() -> None:
    assert sorted(map(len, deal_objects(dict.fromkeys("abcde", 0), 2))) == [2, 3]


def test_fewer_objects_than_shards_leave_shards_empty() -> None:
    assert deal_objects({"a": 5}, 3) == [["a"], [], []]


@pytest.mark.parametrize("shard_count", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(10))
def test_records_are_cut_into_ranges_that_follow_each_other_and_all_shards_differ_by_one_record(
    seed: int, shard_count: int
) -> None:
    chance = random.Random(seed)
    counts = [chance.randint(0, 40) for _ in range(chance.randint(1, 30))]
    shards = divide_records(counts, shard_count)
    for file, count in enumerate(counts):
        assert [record for shard in shards for record in shard[file]] == list(range(count))
    totals = [sum(map(len, shard)) for shard in shards]
    assert max(totals) - min(totals) <= 1


def test_odd_records_of_many_files_do_not_all_go_to_the_first_shard() -> None:
    assert divide_records([1, 1, 3], 2) == [
        [range(1), range(0), range(2)],
        [range(1, 1), range(1), range(2, 3)],
    ]
