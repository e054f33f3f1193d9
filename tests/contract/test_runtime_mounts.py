"""Mounts in mounts, roots that cannot be written, and memory shared between containers: every driver."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.runtime_harness import SHARED, SOON_S, Harness

from raymaker.actors.spec import Mount, Network

EXCHANGE, ARENA = "/opt/ml/exchange", "/opt/ml/exchange/arena"
FUTEX = """
import ctypes, mmap, platform, sys, time
number = {"x86_64": 202, "aarch64": 98}[platform.machine()]
FUTEX_WAIT, FUTEX_WAKE = 0, 1
libc = ctypes.CDLL(None, use_errno=True)
class Timeout(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]
with open("/opt/ml/exchange/arena", "r+b") as file:
    memory = mmap.mmap(file.fileno(), 4096)
word = ctypes.c_uint32.from_buffer(memory)
if sys.argv[1] == "wait":
    print("asleep", flush=True)
    result = libc.syscall(number, ctypes.byref(word), FUTEX_WAIT, 0, ctypes.byref(Timeout(20, 0)), None, 0)
    print("woken", result, memory[8:13].decode())
else:
    memory[8:13] = b"hello"
    deadline = time.monotonic() + 20
    while libc.syscall(number, ctypes.byref(word), FUTEX_WAKE, 1, None, None, 0) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    print("woke one")
"""


@pytest.fixture
def arena() -> Iterator[Path]:
    """A file of shared memory, which a program of any account may write."""
    path = Path(f"/dev/shm/raymaker-test-{uuid.uuid4().hex}")
    path.write_bytes(bytes(64 * 1024))
    path.chmod(0o666)
    yield path
    path.unlink()


def _exchange(harness: Harness, arena: Path, *, read_only: bool = False) -> tuple[Mount, Mount]:
    folder = harness.home / "exchange"
    folder.mkdir(exist_ok=True)
    (folder / "name").write_text("the exchange")
    return Mount(str(folder), EXCHANGE, read_only=read_only), Mount(str(arena), ARENA)


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
@pytest.mark.parametrize("fixed", [False, True], ids=["open-root", "fixed-root"])
def test_a_file_may_be_mounted_in_a_mounted_folder_whatever_their_order(
    harness: Harness, arena: Path, *, read_only: bool, fixed: bool
) -> None:
    script = f"cat {EXCHANGE}/name; echo; printf changed | dd of={ARENA} conv=notrunc 2>/dev/null && head -c 7 {ARENA}"
    for mounts in itertools.permutations(_exchange(harness, arena, read_only=read_only)):
        arena.write_bytes(bytes(64 * 1024))
        assert harness.run(script, mounts=mounts, read_only_root=fixed) == ["the exchange", "changed"]
        assert arena.read_bytes()[:7] == b"changed"
        assert arena.stat().st_size == 64 * 1024


def test_a_folder_may_be_mounted_in_a_read_only_folder(harness: Harness) -> None:
    for name in ("outer", "inner"):
        (harness.home / name).mkdir()
    mounts = (
        Mount(str(harness.home / "inner"), "/opt/ml/input/data/train"),
        Mount(str(harness.home / "outer"), "/opt/ml/input", read_only=True),
    )
    harness.run("touch /opt/ml/input/data/train/x; ! touch /opt/ml/input/x 2>/dev/null", mounts=mounts)
    assert [path.name for path in (harness.home / "inner").iterdir()] == ["x"]


def test_two_containers_wake_each_other_over_shared_memory(harness: Harness, arena: Path) -> None:
    """Without a network, without capabilities, with a root that cannot be written: as the exchange does."""
    (harness.shared / "futex.py").write_text(FUTEX)
    fields = {"mounts": _exchange(harness, arena), "network": Network.NONE, "read_only_root": True}
    asleep = harness.start(f"exec python3 {SHARED}/futex.py wait", **fields)
    harness.wait_for(asleep, "asleep")
    assert harness.run(f"exec python3 {SHARED}/futex.py wake", **fields) == ["woke one"]
    assert harness.runtime().wait(asleep, SOON_S) is not None
    assert harness.said(asleep) == ["asleep", "woken 0 hello"]


def test_a_read_only_root_leaves_only_mounts_tmp_and_shared_memory_to_write(harness: Harness) -> None:
    said = harness.run(
        "for folder in / /etc /usr /usr/bin /opt /opt/ml /var /var/tmp /root /run /sys; do"
        "  touch $folder/mark-of-a-test 2>/dev/null && echo $folder can be written; done;"
        f"for folder in /tmp /dev/shm {SHARED}; do echo $folder >$folder/x && cat $folder/x; done;"
        "printf '#!/bin/sh\\necho ran' >/tmp/program; chmod +x /tmp/program; /tmp/program",
        read_only_root=True,
    )
    assert said == ["/tmp", "/dev/shm", SHARED, "ran"]
    assert not Path("/tmp/program").exists(), "the machine's own /tmp is another"


def test_a_mount_may_take_the_place_of_tmp(harness: Harness) -> None:
    mounts = (Mount(str(harness.shared), "/tmp"),)
    assert harness.run("echo hello >/tmp/greeting; cat /tmp/greeting", mounts=mounts, read_only_root=True) == ["hello"]
    assert (harness.shared / "greeting").read_text() == "hello\n"


def test_programs_with_a_read_only_root_run_as_ever(harness: Harness) -> None:
    said = harness.run("python3 -c 'print(1 + 1)'; echo x | cat; hostname", read_only_root=True, hostname="algo-1")
    assert said == ["2", "x", "algo-1"]
