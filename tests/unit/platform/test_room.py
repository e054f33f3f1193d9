"""Free room, handed out in turn."""

from __future__ import annotations

import math

import pytest

from raymaker.actors.spec import Resources
from raymaker.platform.room import PATIENCE_S, Holding, Room
from support.queueing import HOUR_S, queued

NOW = 100_000.0
LONG_AGO = NOW - PATIENCE_S


def test_a_job_that_waits_keeps_its_room_from_later_ones():
    room = Room(Resources(cpus=4))
    assert room.take(queued("first")) is None
    assert room.take(queued("large", Resources(8))) == "Waiting for an instance: 5 CPUs short of what is free"
    assert room.take(queued("last")) == "Waiting for an instance"
    assert room.take(queued("other", account="b")) == (
        "Waiting for an instance: 6 CPUs short of what is free, less what is kept for 1 job(s) of other accounts"
    )
    assert [job.name for job in room.kept] == ["large", "other"]
    assert not room.is_full, "three CPUs are unused"


def test_what_needs_nothing_that_is_missing_goes_ahead():
    room = Room(Resources(cpus=4, gpus=0))
    assert room.take(queued("gpu", Resources(1, gpus=1))) is not None
    assert room.take(queued("cpu", Resources(3))) is None
    assert room.take(queued("more")) is not None


def test_room_is_kept_once_for_all_of_an_account_that_lack_the_same():
    """Ten jobs that wait for GPUs do not keep ten CPUs from jobs that need none."""
    room = Room(Resources(cpus=4, gpus=0))
    assert all(room.take(queued(f"gpu-{number}", Resources(1, gpus=1))) is not None for number in range(10))
    assert room.take(queued("cpu", Resources(3))) is None


def test_a_job_that_lacks_something_else_than_those_before_it_is_not_passed_either():
    room = Room(Resources(cpus=4, gpus=0))
    assert room.take(queued("gpu", Resources(1, gpus=1))) is not None
    assert room.take(queued("large", Resources(6))) is not None
    assert room.take(queued("small")) is not None


def test_the_room_is_full_when_the_last_cpu_is_taken():
    room = Room(Resources(cpus=2, memory_bytes=100))
    assert room.take(queued("a", Resources(2))) is None
    assert room.is_full


RUNNING = (Holding("c", Resources(2), NOW + HOUR_S), Holding("c", Resources(2), NOW + 2 * HOUR_S))


@pytest.mark.parametrize(
    ("account", "limit_s", "since", "passes"),
    [
        ("b", 2 * HOUR_S, LONG_AGO, True),
        ("b", 2 * HOUR_S, LONG_AGO + 1, False),
        ("b", 2 * HOUR_S + 1, LONG_AGO, False),
        ("a", 60.0, LONG_AGO, False),
    ],
    ids=["it ends before", "not yet", "it might end after", "of the same account never"],
)
def test_kept_room_is_used_by_what_is_sure_to_have_ended(account, limit_s, since, passes):
    """The large job can begin in two hours at the latest, when both of those that run have ended."""
    room = Room(Resources(4), RUNNING, NOW, {"large": since})
    assert room.take(queued("large", Resources(8))) is not None
    assert (room.take(queued("short", Resources(4), account, limit_s=limit_s)) is None) is passes


def test_what_passes_takes_no_more_than_is_there():
    room = Room(Resources(4), RUNNING, NOW, {"large": LONG_AGO})
    room.take(queued("large", Resources(8)))
    assert room.take(queued("one", Resources(3), "b", limit_s=60)) is None
    assert room.take(queued("two", Resources(2), "b", limit_s=60)) is not None


def test_what_passes_delays_nobody_else_either():
    room = Room(Resources(4), RUNNING, NOW, {"large": LONG_AGO})
    room.take(queued("large", Resources(8)))
    room.take(queued("fresh", Resources(5), "b"))
    assert room.take(queued("short", Resources(1), "c", limit_s=60)) is not None


def test_a_job_that_no_end_of_another_would_help_keeps_nothing_for_good():
    """The other half of the cluster is an endpoint's, or gone."""
    hopeless = queued("large", Resources(9))
    room = Room(Resources(4), RUNNING, NOW, {"large": LONG_AGO})
    assert room.take(hopeless) is not None
    assert room.take(queued("any", Resources(4), "b", limit_s=math.inf)) is None


def test_who_waits_is_told_of_what_is_kept_warm() -> None:
    """What ends at this moment is kept no more."""
    kept = [Holding("b", Resources(1), ends_by, is_kept_warm=True) for ends_by in (50.0, 99.0)]
    room = Room(Resources(1), [*kept, Holding("b", Resources(1), 99.0)], now=50.0)
    assert room.take(queued("job", Resources(2))) == (
        "Waiting for an instance: 1 CPUs short of what is free; 1 machine(s) are kept in warm pools"
    )
