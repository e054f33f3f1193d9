"""What several containers left, made one folder: nothing lost in silence, nothing followed that leads out."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from raymaker.actors import merging
from raymaker.actors.artifacts import pack, unpack
from raymaker.actors.merging import merge_folders
from raymaker.actors.storage import ObjectStore, StoreConfig


@pytest.fixture
def ranks(tmp_path: Path) -> list[tuple[int, Path]]:
    parts = [(rank, tmp_path / f"rank-{rank}") for rank in range(3)]
    for _, folder in parts:
        folder.mkdir()
    return parts


def write(parts: list[tuple[int, Path]], rank: int, name: str, text: str) -> Path:
    path = parts[rank][1] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tree(folder: Path) -> dict[str, str | None]:
    """Every name with its text, None for folders, `-> target` for links."""
    return {
        path.relative_to(folder).as_posix(): f"-> {path.readlink()}"
        if path.is_symlink()
        else (None if path.is_dir() else path.read_text())
        for path in sorted(folder.rglob("*"))
    }


def test_files_of_all_come_into_one_folder(ranks, tmp_path: Path) -> None:
    write(ranks, 0, "model.bin", "weights")
    write(ranks, 1, "shards/1.bin", "one")
    write(ranks, 2, "shards/2.bin", "two")
    (ranks[2][1] / "empty").mkdir()
    assert merge_folders(ranks, tmp_path / "all") == []
    assert tree(tmp_path / "all") == {
        "empty": None,
        "model.bin": "weights",
        "shards": None,
        "shards/1.bin": "one",
        "shards/2.bin": "two",
    }


def test_the_same_file_from_everyone_is_no_conflict(ranks, tmp_path: Path) -> None:
    for rank in range(3):
        write(ranks, rank, "model.bin", "w" * 3_000_000)
    assert merge_folders(ranks, tmp_path / "all") == []
    assert (tmp_path / "all" / "model.bin").stat().st_size == 3_000_000


@pytest.mark.parametrize("other", ["W" * 2_000_000, "w" * 1_999_999 + "x", "w"])
def test_where_bytes_differ_the_lowest_ranks_file_is_kept_and_the_others_are_told(
    ranks, tmp_path: Path, other: str
) -> None:
    write(ranks, 0, "a/m", "w" * 2_000_000)
    write(ranks, 1, "a/m", other)
    write(ranks, 2, "a/m", "w" * 2_000_000)
    (message,) = merge_folders(list(reversed(ranks)), tmp_path / "all")
    assert message == (
        "'a/m': rank 0 left a file, which was kept, and rank 1 left another file there, which was not; "
        "let one rank write it, or give each a name of its own"
    )
    assert (tmp_path / "all" / "a" / "m").read_text() == "w" * 2_000_000


def test_a_file_where_another_left_a_folder_is_a_conflict_either_way(ranks, tmp_path: Path) -> None:
    write(ranks, 0, "a", "file")
    write(ranks, 1, "a/b", "inside")
    write(ranks, 1, "c/d", "inside")
    write(ranks, 2, "c", "file")
    told = merge_folders(ranks, tmp_path / "all")
    assert [message.partition(";")[0] for message in told] == [
        "'a': rank 0 left a file, which was kept, and rank 1 left a folder there, which was not",
        "'c': rank 1 left a folder, which was kept, and rank 2 left a file there, which was not",
    ]
    assert tree(tmp_path / "all") == {"a": "file", "c": None, "c/d": "inside"}


def test_what_lies_in_a_folder_goes_on_being_merged_past_a_conflict(ranks, tmp_path: Path) -> None:
    write(ranks, 0, "a/x", "0")
    write(ranks, 1, "a", "file")
    write(ranks, 2, "a/y", "2")
    assert len(merge_folders(ranks, tmp_path / "all")) == 1
    assert tree(tmp_path / "all") == {"a": None, "a/x": "0", "a/y": "2"}


def test_large_files_are_not_copied_on_one_filesystem(ranks, tmp_path: Path) -> None:
    source = write(ranks, 1, "model.bin", "weights")
    merge_folders(ranks, tmp_path / "all")
    assert (tmp_path / "all" / "model.bin").samefile(source)


def test_where_there_can_be_no_hard_link_files_are_copied_with_their_mode(
    ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "another filesystem")

    monkeypatch.setattr(merging.os, "link", refuse)
    source = write(ranks, 0, "run.sh", "#!/bin/sh")
    source.chmod(0o755)
    merge_folders(ranks, tmp_path / "all")
    copy = tmp_path / "all" / "run.sh"
    assert not copy.samefile(source)
    assert (copy.read_text(), copy.stat().st_mode & 0o777) == ("#!/bin/sh", 0o755)


def test_a_link_that_leads_out_is_left_out_and_another_ranks_file_takes_its_place(ranks, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of this machine")
    (ranks[0][1] / "model").symlink_to(secret)
    (ranks[0][1] / "up").symlink_to("../secret")
    (ranks[0][1] / "folder").symlink_to(tmp_path)
    write(ranks, 1, "model", "weights")
    write(ranks, 1, "folder/x", "inside")
    told = merge_folders(ranks, tmp_path / "all")
    assert tree(tmp_path / "all") == {"folder": None, "folder/x": "inside", "model": "weights"}
    assert told == [
        f"'{name}' of rank 0 is a link that leads out of the folder or nowhere, and was left out"
        for name in ("folder", "model", "up")
    ]


def test_no_folder_is_entered_and_no_file_written_through_a_link(ranks, tmp_path: Path) -> None:
    write(ranks, 0, "real/kept", "0")
    (ranks[0][1] / "alias").symlink_to("real")
    write(ranks, 1, "alias/new", "1")
    told = merge_folders(ranks, tmp_path / "all")
    assert tree(tmp_path / "all") == {"alias": "-> real", "real": None, "real/kept": "0"}
    assert told[0].startswith("'alias': rank 0 left a link, which was kept, and rank 1 left a folder there")


def test_links_that_the_container_saw_as_absolute_are_the_same_as_relative_ones(ranks, tmp_path: Path) -> None:
    for rank, target in enumerate(["/opt/ml/model/step-3", "step-3", "./step-3"]):
        write(ranks, rank, "step-3/w", "weights")
        (ranks[rank][1] / "latest").symlink_to(target)
    assert merge_folders(ranks, tmp_path / "all") == []
    assert tree(tmp_path / "all")["latest"] == "-> step-3"


def test_links_to_different_places_are_a_conflict(ranks, tmp_path: Path) -> None:
    for rank in (0, 1):
        write(ranks, rank, f"step-{rank}", "weights")
        (ranks[rank][1] / "latest").symlink_to(f"step-{rank}")
    told = merge_folders(ranks, tmp_path / "all")
    assert told[0].startswith("'latest': rank 0 left a link, which was kept, and rank 1 left another link there")
    assert tree(tmp_path / "all")["latest"] == "-> step-0"


def test_links_in_a_circle_and_pipes_are_left_out(ranks, tmp_path: Path) -> None:
    (ranks[0][1] / "a").symlink_to("b")
    (ranks[0][1] / "b").symlink_to("a")
    os.mkfifo(ranks[1][1] / "pipe")
    assert len(merge_folders(ranks, tmp_path / "all")) == 3
    assert tree(tmp_path / "all") == {}


def test_a_container_that_removed_its_folder_left_nothing(ranks, tmp_path: Path) -> None:
    ranks[0][1].rmdir()
    write(ranks, 1, "model", "weights")
    assert merge_folders(ranks, tmp_path / "all") == []
    assert tree(tmp_path / "all") == {"model": "weights"}


def test_of_many_conflicts_the_first_are_told_and_the_rest_counted(ranks, tmp_path: Path) -> None:
    for rank in range(3):
        for n in range(50):
            write(ranks, rank, f"{n:02}", str(rank))
    told = merge_folders(ranks, tmp_path / "all")
    assert len(told) == merging.MESSAGES_COUNT + 1
    assert told[0].startswith("'00': rank 0 left a file, which was kept, and rank 1, rank 2 left another file there")
    assert told[-1] == "and 30 more like these"


def test_of_many_ranks_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    parts = [(rank, tmp_path / f"rank-{rank}") for rank in range(20)]
    for rank, _ in parts:
        write(parts, rank, "metrics.json", str(rank))
    (message,) = merge_folders(parts, tmp_path / "all", called=lambda rank: f"machine {rank}")
    assert "machine 0 left a file" in message
    assert "machine 1, machine 2" in message
    assert "machine 8 and 11 more left another file" in message


@pytest.mark.parametrize("name", ["new\nline", "\udcff", "n" * 250])
def test_a_name_that_a_stranger_chose_is_told_in_one_plain_line(ranks, tmp_path: Path, name: str) -> None:
    for rank in (0, 1):
        write(ranks, rank, name, str(rank))
    (message,) = merge_folders(ranks, tmp_path / "all")
    assert message.isprintable()
    assert len(message) < 500
    message.encode()


def test_parts_that_came_by_the_store_from_other_machines_make_one_archive(ranks, tmp_path: Path) -> None:
    store = ObjectStore(StoreConfig(retry_s=0))
    write(ranks, 0, "model.bin", "weights")
    write(ranks, 1, "model.bin", "weights")
    write(ranks, 1, "shards/1", "one")
    (ranks[1][1] / "latest").symlink_to("/opt/ml/model/shards")
    part = pack(ranks[1][1], store, f"{tmp_path}/staged/machine-1.tar.gz")
    unpack(store, part, tmp_path / "fetched")
    assert merge_folders([(0, ranks[0][1]), (1, tmp_path / "fetched")], tmp_path / "all") == []
    with tarfile.open(pack(tmp_path / "all", store, f"{tmp_path}/model.tar.gz")) as archive:
        assert archive.getnames() == ["latest", "model.bin", "shards", "shards/1"]
