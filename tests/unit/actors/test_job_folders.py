"""Job folders as leftovers: whose they are, and which may not go."""

from __future__ import annotations

from pathlib import Path

from raymaker.actors.channels.once import SharedChannels
from raymaker.actors.job_folders import JobFolders
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_OWNER


def owners(home: Path) -> list[str]:
    return [labels[LABEL_OWNER] for _, labels in JobFolders(home).owned({LABEL_HOME: str(home)})]


def test_a_folder_belongs_to_the_lease_of_its_attempt(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "mine" / "2-1-m0").mkdir(parents=True)
    assert owners(tmp_path) == ["training-mine-2-1-m0"]


def test_channels_that_somebody_holds_are_nobodys_leftovers(tmp_path: Path) -> None:
    channels = SharedChannels(tmp_path / "jobs" / "mine" / "1-channels")
    channels.hold()
    assert channels.is_held()
    assert owners(tmp_path) == []
    channels.release()
    assert not channels.is_held()


def test_what_is_removed_takes_its_jobs_folder_along_once_that_is_empty(tmp_path: Path) -> None:
    for part in ("1", "1-channels"):
        (tmp_path / "jobs" / "mine" / part / "data").mkdir(parents=True)
    folders = JobFolders(tmp_path)
    for handle, _ in folders.owned({}):
        folders.remove(handle)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_machines_of_transform_jobs_have_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "transforms" / "mine" / "1-0").mkdir(parents=True)
    found = JobFolders(tmp_path, "transforms", "transform").owned({LABEL_HOME: str(tmp_path)})
    assert [labels[LABEL_OWNER] for _, labels in found] == ["transform-mine-1-0"]
    assert owners(tmp_path) == []
