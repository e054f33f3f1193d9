"""Whose turn it is: a table of lines, and a small world in which jobs run and end."""

from __future__ import annotations

from collections import Counter, deque

import pytest

from raymaker.actors.spec import Resources
from raymaker.platform.room import Holding, Queued, Room
from raymaker.platform.turns import Turns, dominant_share
from support.queueing import queued

FREE = Resources(8, 800)


def line(*names: str) -> list[Queued]:
    """Jobs in the order in which they were made; the first letter is the account."""
    return [queued(name, account=name[0], created_at=number) for number, name in enumerate(names)]


def held(account: str, cpus: float, memory: int = 0) -> Holding:
    return Holding(account, Resources(cpus, memory), 0)


@pytest.mark.parametrize(
    ("waiting", "holdings", "expected"),
    [
        (("a1", "a2", "a3"), (), "a1 a2 a3"),
        (("a1", "a2", "a3", "b1", "b2"), (), "a1 b1 a2 b2 a3"),
        (("b1", "a1", "c1", "a2"), (), "b1 a1 c1 a2"),
        (("a1", "a2", "b1"), (held("a", 1),), "b1 a1 a2"),
        (("a1", "b1", "b2", "b3"), (held("a", 2),), "b1 b2 a1 b3"),
        (("a1", "b1"), (held("a", 1, 10), held("b", 1, 700)), "a1 b1"),
        ((), (held("a", 1),), ""),
    ],
    ids=[
        "one account in order",
        "turn by turn",
        "who is first seen is first of equals",
        "who holds nothing first",
        "until both hold the same",
        "by the kind of which most is held",
        "nobody",
    ],
)
def test_order(waiting, holdings, expected):
    assert " ".join(job.name for job in Turns().order(line(*waiting), holdings, FREE)) == expected


def test_a_large_job_costs_its_account_as_many_turns():
    large = queued("a1", Resources(3), "a", 0)
    jobs = [large, *line("-", "a2", "b1", "b2", "b3", "b4")[1:]]
    assert [job.name for job in Turns().order(jobs, (), FREE)] == ["a1", "b1", "b2", "b3", "a2", "b4"]


def test_of_equals_who_waited_longest_is_next():
    """Where there is room for one job at a time, accounts take turns however old their jobs are."""
    turns, waiting, started = Turns(), line("a1", "a2", "a3", "b1", "b2", "c1"), []
    while waiting:
        job = next(turns.order(waiting, (), FREE))
        turns.served(job.account)
        waiting.remove(job)
        started.append(job.name)
    assert started == ["a1", "b1", "c1", "a2", "b2", "a3"]


class SmallCluster:
    """Jobs run in it one after the other to their end, the oldest first."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.turns = Turns()
        self.running: deque[Queued] = deque()

    def step(self, waiting: list[Queued], now: float = 0.0) -> list[Queued]:
        """Start what is in turn and has room, and return it."""
        holdings = [Holding(job.account, job.needed, now + 1) for job in self.running]
        free = Resources(self.cpus - sum(it.held.cpus for it in holdings))
        room, started = Room(free, holdings, now), []
        for job in self.turns.order(waiting, holdings, free):
            if room.take(job) is None:
                self.turns.served(job.account)
                started.append(job)
        self.running += started
        return started


@pytest.mark.parametrize("others", [1, 5])
def test_a_large_job_is_started_though_small_ones_of_others_keep_coming(others):
    """Each of the others has always one job in line, and none of an older date: they hold room only once more."""
    cluster = SmallCluster(4)
    cluster.step(line("b1", "b2", "b3", "b4"))
    large = queued("large", Resources(4), "a", 1)
    for moment in range(2, 12):
        cluster.running.popleft()
        small = [queued(f"{n}-{moment}", account=f"b{n}", created_at=moment) for n in range(others)]
        if large in cluster.step([large, *small], moment):
            return
    pytest.fail("it was passed over ten times")


def test_two_accounts_share_a_busy_cluster_evenly():
    """One has filled it before the other came; as its jobs end both come to hold half, and keep it."""
    cluster, started = SmallCluster(8), []
    waiting = line(*(f"a{number:03}" for number in range(100)))
    for moment in range(60):
        if moment:
            cluster.running.popleft()
        if moment == 1:
            waiting += line(*(f"b{number:03}" for number in range(100)))
        for job in cluster.step(waiting):
            waiting.remove(job)
            started.append(job.name)
        if moment > 4:
            assert Counter(job.account for job in cluster.running) == {"a": 4, "b": 4}
    assert [name for name in started if name[0] == "b"] == [f"b{number:03}" for number in range(len(started) - 36)]


def test_a_share_counts_what_there_is():
    assert dominant_share(Resources(1, 50, 1), Resources(4, 100, 0)) == 0.5
    assert dominant_share(Resources(0), Resources(0)) == 0
