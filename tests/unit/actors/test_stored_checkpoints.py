"""Stored checkpoints as a reader finds them: only what is whole, in its newest version, verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from raymaker.actors.checkpoints.ledger import Ledger
from raymaker.actors.checkpoints.manifest import Manifest, StoredFile, Writer
from raymaker.actors.checkpoints.stored import fetch_checkpoint, list_checkpoints
from raymaker.actors.errors import ObjectNotFound
from raymaker.actors.storage import ObjectStore


@pytest.fixture
def location(tmp_path: Path) -> Path:
    folder = tmp_path / "location"
    for name, content in {
        "epoch-1": "one",
        "epoch-2/weights": "two",
        "epoch-2/deep/more": "deep",
        "half": "hal",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def write_down(location: Path, *, half: bool = False) -> None:
    """Have a writer note what it stored: the epochs; `half` was begun only."""
    ledger = Ledger(ObjectStore(), location.as_uri(), Writer(1, job="job"))
    claim = ledger.begin().claim
    entries = {
        "epoch-1": {"epoch-1": StoredFile(3, None, "epoch-1")},
        "epoch-2": {
            name: StoredFile(size, None, name) for name, size in (("epoch-2/weights", 3), ("epoch-2/deep/more", 4))
        },
    }
    ledger.write(Manifest(claim, entries, frozenset({*entries, *(["half"] if half else [])})))


def test_what_was_begun_only_is_not_listed_and_nothing_is_claimed(location: Path) -> None:
    write_down(location, half=True)
    before = sorted(path for path in location.rglob("*"))
    found = list_checkpoints(ObjectStore(), location.as_uri())
    assert {(it.name, it.size_bytes, it.file_count) for it in found} == {("epoch-1", 3, 1), ("epoch-2", 7, 2)}
    assert all(it.modified_at > 0 for it in found)
    assert sorted(path for path in location.rglob("*")) == before


def test_a_location_where_nothing_lies_yet_has_no_checkpoints(tmp_path: Path) -> None:
    assert list_checkpoints(ObjectStore(), (tmp_path / "none").as_uri()) == []


def test_a_file_is_fetched_under_its_name_and_of_a_folder_what_is_in_it(location: Path, tmp_path: Path) -> None:
    write_down(location)
    for name, expected in {"epoch-1": {"epoch-1": "one"}, "epoch-2": {"weights": "two", "deep/more": "deep"}}.items():
        folder = tmp_path / "made" / "model"
        fetch_checkpoint(ObjectStore(), location.as_uri(), name, folder)
        found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
        assert found == expected
        assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("name", "why"), [("epoch-9", "nothing of that name lies there"), ("half", "its writer ended before it was stored")]
)
def test_one_that_is_not_whole_cannot_be_fetched(location: Path, tmp_path: Path, name: str, why: str) -> None:
    write_down(location, half=True)
    with pytest.raises(ObjectNotFound, match=why):
        fetch_checkpoint(ObjectStore(), location.as_uri(), name, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_one_that_changes_after_it_was_written_down_is_refused(location: Path, tmp_path: Path) -> None:
    write_down(location)
    (location / "epoch-1").write_text("other")
    with pytest.raises(ObjectNotFound, match="does not fit what was written down"):
        fetch_checkpoint(ObjectStore(), location.as_uri(), "epoch-1", tmp_path / "model")
