"""Which container of a job gets what of a channel: pure functions of names, sizes and counts, whatever the order.

So the split is the same after a restart. Reads no object: `file.py` carries the split out.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Which share of a channel is meant: number `index`, from 0, of `count`."""

    index: int
    count: int


def deal_objects(sizes: Mapping[str, int], shard_count: int) -> list[list[str]]:
    """Deal whole objects, given as name and size in bytes, to shards; each shard's names come sorted.

    Shards get equally many objects, or one more or less, as ShardedByS3Key promises; within that the bytes are
    balanced: the largest object left always goes to the shard that has the fewest bytes and room for another. Shards
    then differ by no more than the largest object's size. No shard is empty where there are `shard_count` objects.
    """
    shards: list[list[str]] = [[] for _ in range(shard_count)]
    fair_count, larger_count = divmod(len(sizes), shard_count)
    lightest = [(0, index) for index in range(shard_count)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        while len(shards[lightest[0][1]]) >= fair_count + (larger_count > 0):
            heapq.heappop(lightest)  # full, and stays so
        load_bytes, index = lightest[0]
        if len(shards[index]) == fair_count:
            larger_count -= 1
        shards[index].append(name)
        heapq.heapreplace(lightest, (load_bytes + sizes[name], index))
    return [sorted(names) for names in shards]


def divide_records(counts: Sequence[int], shard_count: int) -> list[list[range]]:
    """Divide every file's records among shards: for each shard one range of each file, in the files' order.

    Each file is cut into contiguous ranges. Its odd records go to the shards after the one where the last file's ended,
    so that over all files, too, shards differ by one record at most: training in step needs equally many.
    """
    shards: list[list[range]] = [[] for _ in range(shard_count)]
    first_favoured = 0
    for count in counts:
        fair_count, odd_count = divmod(count, shard_count)
        start = 0
        for index, shard in enumerate(shards):
            is_favoured = (index - first_favoured) % shard_count < odd_count
            shard.append(range(start, start + fair_count + is_favoured))
            start = shard[-1].stop
        first_favoured = (first_favoured + odd_count) % shard_count
    return shards
