"""Shared-memory files as the reaper sees them: each its owner's, and none of another home's."""

from __future__ import annotations

from pathlib import Path

from raymaker.actors.lease import Lease
from raymaker.actors.reaper import Reaper
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_OWNER, home_tag
from raymaker.actors.runtime.shared_memory import SharedMemoryFiles


def test_a_file_is_its_owners_by_its_name(home: Path, tmp_path: Path) -> None:
    memory = _memory(tmp_path, home, "training-job-1")
    _memory(tmp_path, home / "another", "training-job-1")
    (memory / "sem.somebody").touch()
    (memory / f"raymaker-{home_tag(home)}-a-folder").mkdir()
    files = SharedMemoryFiles(home, memory)
    ((found, labels),) = files.owned({LABEL_HOME: str(home)})
    assert labels == {LABEL_HOME: str(home), LABEL_OWNER: "training-job-1"}
    assert files.owned({LABEL_HOME: str(home), LABEL_OWNER: "training-job-2"}) == []
    for _ in range(2):
        files.remove(found)
    assert files.owned({LABEL_HOME: str(home)}) == []
    assert len(list(memory.iterdir())) == 3


def test_a_file_whose_owner_died_is_swept(home: Path, tmp_path: Path) -> None:
    memory = _memory(tmp_path, home, "training-job-1", "training-job-2")
    reaper = Reaper([], home, reap_after_s=20, leftovers=[SharedMemoryFiles(home, memory)])
    with Lease.acquire(home, "training-job-2"):
        assert [reaper.step(now) for now in (0, 20)] == [[], [f"raymaker-{home_tag(home)}-training-job-1"]]
    assert [path.name for path in memory.iterdir()] == [f"raymaker-{home_tag(home)}-training-job-2"]


def test_where_there_is_no_shared_memory_there_is_nothing_to_sweep(home: Path, tmp_path: Path) -> None:
    assert SharedMemoryFiles(home, tmp_path / "missing").owned({}) == []


def _memory(tmp_path: Path, home: Path, *owners: str) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir(exist_ok=True)
    for owner in owners:
        (folder / f"raymaker-{home_tag(home)}-{owner}").touch()
    return folder
