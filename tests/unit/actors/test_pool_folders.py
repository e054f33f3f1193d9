"""What warm pools left is removed once they have ended, and nothing else."""

from __future__ import annotations

from pathlib import Path

from raymaker.actors.pool_folders import has_pools, remove_ended


def leave(root: Path, pool: str) -> None:
    folder = root / pool / "0"
    folder.mkdir(parents=True)
    (folder / "left").write_text("something")


def test_the_folders_of_pools_that_ended_go(tmp_path: Path) -> None:
    root, outside = tmp_path / "pools", tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").touch()
    leave(root, "ended")
    leave(root, "living")
    (root / "ended" / "0" / "link").symlink_to(outside)
    assert remove_ended(root, lambda: {"living", "elsewhere"}) == ["ended"]
    assert [path.name for path in root.iterdir()] == ["living"]
    assert (root / "living" / "0" / "left").exists()
    assert (outside / "mine").exists(), "no link is followed"


def test_a_pool_that_begins_while_one_looks_is_left_alone(tmp_path: Path) -> None:
    def living() -> set[str]:
        leave(tmp_path, "new")
        return set()

    leave(tmp_path, "ended")
    assert remove_ended(tmp_path, living) == ["ended"]
    assert (tmp_path / "new" / "0" / "left").exists()


def test_nobody_is_asked_where_there_is_nothing(tmp_path: Path) -> None:
    def living() -> set[str]:
        raise AssertionError("nobody was to be asked")

    assert remove_ended(tmp_path, living) == remove_ended(tmp_path / "none", living) == []


def test_it_is_told_whether_a_pool_has_left_anything(tmp_path: Path) -> None:
    assert not has_pools(tmp_path / "none")
    assert not has_pools(tmp_path)
    leave(tmp_path, "ended")
    assert has_pools(tmp_path)
    remove_ended(tmp_path, set)
    assert not has_pools(tmp_path)
