"""Leases: one living holder each, by the kernel's word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raymaker.actors.lease import Lease, LeaseHeld, abandoned_leases, is_held

HOLD = """
import sys, pathlib
from raymaker.actors.lease import Lease
lease = Lease.acquire(pathlib.Path(sys.argv[1]), "job-1")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lease_is_held_until_it_is_released(home: Path) -> None:
    lease = Lease.acquire(home, "job-1")
    assert is_held(home, "job-1")
    lease.release()
    assert not is_held(home, "job-1")


def test_a_block_releases_its_lease_and_leaves_no_file(home: Path) -> None:
    with Lease.acquire(home, "job-1"):
        assert is_held(home, "job-1")
    assert not list((home / "leases").iterdir())


def test_nobody_holds_a_lease_that_was_never_taken(home: Path) -> None:
    assert not is_held(home, "job-1")
    assert abandoned_leases(home) == []


def test_a_held_lease_is_refused_and_says_who_has_it(home: Path) -> None:
    with Lease.acquire(home, "job-1"), pytest.raises(LeaseHeld, match=r"job-1 is held by process \d+"):
        Lease.acquire(home, "job-1")


def test_leases_of_other_names_do_not_disturb_each_other(home: Path) -> None:
    with Lease.acquire(home, "job-1"), Lease.acquire(home, "job-2"):
        assert is_held(home, "job-1")
        assert is_held(home, "job-2")


def test_releasing_twice_does_not_harm_the_next_holder(home: Path) -> None:
    first = Lease.acquire(home, "job-1")
    first.release()
    with Lease.acquire(home, "job-1"):
        first.release()
        assert is_held(home, "job-1")


def test_asking_again_and_again_never_stands_in_the_way(home: Path) -> None:
    (home / "leases").mkdir()
    (home / "leases" / "job-1").touch()
    assert not is_held(home, "job-1")
    with Lease.acquire(home, "job-1"):
        pass


def test_the_kernel_takes_the_lease_of_a_killed_process_back(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_held(home, "job-1")
        with pytest.raises(LeaseHeld, match=str(holder.pid)):
            Lease.acquire(home, "job-1")
        holder.kill()
    assert not is_held(home, "job-1")
    assert abandoned_leases(home) == ["job-1"]
    with Lease.acquire(home, "job-1"):
        assert abandoned_leases(home) == []


def test_a_child_of_the_holder_does_not_keep_the_lease(home: Path) -> None:
    lease = Lease.acquire(home, "job-1")
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        lease.release()
        assert not is_held(home, "job-1")
        child.kill()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_a_name_that_is_no_file_name_is_refused(home: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a lease"):
        Lease.acquire(home, name)
