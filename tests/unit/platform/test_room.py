"""Free room, handed out in turn."""

from __future__ import annotations

from raymaker.actors.spec import Resources
from raymaker.platform.room import Room


def test_a_job_that_waits_keeps_its_room_from_later_ones():
    room = Room(Resources(cpus=4))
    assert room.take("first", Resources(cpus=1), "an instance of small") is None
    assert room.take("large", Resources(cpus=8), "an instance of large") == (
        "Waiting for an instance of large: 5 CPUs short of what is free"
    )
    assert room.take("last", Resources(cpus=1), "an instance of small") == (
        "Waiting for an instance of small: 6 CPUs short of what is free, behind 1 other job(s), first large"
    )


def test_what_needs_nothing_that_is_missing_goes_ahead():
    room = Room(Resources(cpus=4, gpus=0))
    assert room.take("gpu", Resources(cpus=1, gpus=1), "an instance of gpu") is not None
    assert room.take("cpu", Resources(cpus=3), "an instance of cpu") is None
    assert room.take("more", Resources(cpus=1), "an instance of cpu") is not None
