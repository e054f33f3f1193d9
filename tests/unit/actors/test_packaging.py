"""Source code staged by content, its launchers, and what is refused."""

from __future__ import annotations

import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from raymaker.actors.errors import ArchiveError, ObjectNotFound, PackagingError
from raymaker.actors.packaging import StagedSource, build_here, stage_source
from raymaker.actors.spec import SourceSpec
from raymaker.actors.storage import ObjectStore, StoreConfig

STORE = ObjectStore(StoreConfig(retry_s=0))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "lib").mkdir(parents=True)
    (folder / "train.py").write_text("import sys; from lib.words import WORD; print(WORD, *sys.argv[1:])")
    (folder / "lib" / "words.py").write_text("WORD = 'training'")
    (folder / "serve.sh").write_text("echo serving from $PWD")
    return folder


def stage(uri: object, entry_point: str, tmp_path: Path) -> StagedSource:
    return stage_source(STORE, SourceSpec(str(uri), entry_point), tmp_path / "work")


def run(staged: StagedSource, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(staged.folder / "bin" / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_folder_is_staged_under_its_hash_and_runs_with_arguments(code: Path, tmp_path: Path) -> None:
    staged = stage(code.as_uri(), "train.py", tmp_path)
    assert staged.folder == tmp_path / "work" / staged.sha256
    assert run(staged, "train", "--lr", "a b").stdout == "training --lr a b\n"
    assert run(staged, "serve").stdout == f"serving from {staged.folder}/code\n"


def test_the_same_code_is_staged_once_and_other_code_elsewhere(code: Path, tmp_path: Path) -> None:
    first = stage(code, "train.py", tmp_path)
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "x.pyc").touch()
    assert stage(code, "train.py", tmp_path) == first
    (code / "train.py").write_text("print('other')")
    assert stage(code, "train.py", tmp_path).sha256 != first.sha256
    assert len(list((tmp_path / "work").iterdir())) == 2


def test_many_may_stage_the_same_code_at_once(code: Path, tmp_path: Path) -> None:
    staged: list[StagedSource] = []
    threads = [threading.Thread(target=lambda: staged.append(stage(code, "train.py", tmp_path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(staged) == 6
    assert [path.name for path in (tmp_path / "work").iterdir()] == [staged[0].sha256]


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar", "zip"])
def test_archives_are_staged_like_the_folder_they_hold(code: Path, tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"code.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in code.rglob("*"):
                packed.write(path, path.relative_to(code))
    else:
        with tarfile.open(archive, "w:gz" if "gz" in suffix else "w") as packed_tar:
            packed_tar.add(code, ".")
    assert stage(archive, "train.py", tmp_path) == stage(code, "train.py", tmp_path)


def test_a_single_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "my train.py").write_text("print('alone')")
    staged = stage((tmp_path / "my train.py").as_uri(), "my train.py", tmp_path)
    assert run(staged, "train").stdout == "alone\n"


def test_an_entry_point_in_a_subfolder_serves_from_beside_it(code: Path, tmp_path: Path) -> None:
    (code / "lib" / "go").write_text("#!/bin/sh\necho gone")
    (code / "lib" / "serve").write_text("#!/bin/sh\necho served")
    staged = stage(code, "lib/go", tmp_path)
    assert run(staged, "train").stdout == "gone\n"
    assert run(staged, "serve").stdout == "served\n"


def test_programs_run_though_object_stores_keep_no_modes(code: Path, tmp_path: Path) -> None:
    (code / "go").write_text("#!/bin/sh\n./helper")
    (code / "helper").write_text("#!/bin/sh\necho helped")
    assert run(stage(code, "go", tmp_path), "train").stdout == "helped\n"


def test_code_that_cannot_serve_says_so_and_ends_with_64(code: Path, tmp_path: Path) -> None:
    (code / "serve.sh").unlink()
    done = run(stage(code, "train.py", tmp_path), "serve")
    assert done.returncode == 64
    assert "add one of serve.py serve.sh serve" in done.stderr


def test_an_entry_point_that_is_not_there_names_what_is(code: Path, tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r"main.py is not in .*: lib/words.py, serve.sh, train.py"):
        stage(code, "main.py", tmp_path)
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("entry_point", ["../train.py", "/bin/sh", "", ".", "a\nb"])
def test_an_entry_point_is_a_path_in_the_code(code: Path, tmp_path: Path, entry_point: str) -> None:
    with pytest.raises(PackagingError):
        stage(code, entry_point, tmp_path)


def test_code_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match="nothing/here"):
        stage(f"{tmp_path}/nothing/here", "train.py", tmp_path)


def test_a_hostile_archive_of_code_writes_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as packed:
        packed.writestr("../../evil", "x")
    with pytest.raises(ArchiveError, match="evil"):
        stage(tmp_path / "code.zip", "train.py", tmp_path)
    assert list((tmp_path / "work").iterdir()) == []


def test_code_without_a_build_script_is_ready_as_it_is(code: Path, tmp_path: Path) -> None:
    staged = stage(code, "train.py", tmp_path)
    assert build_here(staged) == staged
