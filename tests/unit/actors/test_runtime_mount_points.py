"""The places of mounts in other mounts: made where they are missing, and only there."""

from __future__ import annotations

from pathlib import Path

from raymaker.actors.runtime.mount_points import make_mount_points
from raymaker.actors.spec import Mount


def test_a_place_is_made_in_the_innermost_mount_that_holds_it(tmp_path: Path) -> None:
    for name in ("outer", "inner", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "arena").write_text("memory")
    make_mount_points(
        (
            Mount(str(tmp_path / "arena"), "/opt/ml/exchange/deep/arena"),
            Mount(str(tmp_path / "inner"), "/opt/ml/exchange"),
            Mount(str(tmp_path / "outer"), "/opt/ml"),
            Mount(str(tmp_path / "data"), "/data"),
        )
    )
    assert (tmp_path / "inner" / "deep" / "arena").read_bytes() == b""
    assert (tmp_path / "outer" / "exchange").is_dir()
    assert not list((tmp_path / "data").iterdir())


def test_what_is_there_stays_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "arena").write_text("memory")
    (tmp_path / "folder" / "kept").write_text("kept")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "elsewhere")
    folder = Mount(str(tmp_path / "folder"), "/x")
    make_mount_points((folder, Mount(str(tmp_path / "arena"), "/x/kept"), Mount(str(tmp_path / "arena"), "/x/link")))
    assert (tmp_path / "folder" / "kept").read_text() == "kept"
    assert not (tmp_path / "elsewhere").exists()


def test_what_does_not_exist_is_the_drivers_to_tell(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    make_mount_points((Mount(str(tmp_path / "folder"), "/x"), Mount(str(tmp_path / "missing"), "/x/y")))
    assert not list((tmp_path / "folder").iterdir())
