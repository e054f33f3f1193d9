"""Packing folders that containers left, unpacking archives that strangers made."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from raymaker.actors import extraction
from raymaker.actors.artifacts import pack, unpack
from raymaker.actors.errors import ArchiveError, ObjectNotFound, StorageError
from raymaker.actors.extraction import UnpackLimits, extract_zip
from raymaker.actors.storage import ObjectStore, StoreConfig

Entry = tuple[str, bytes] | tarfile.TarInfo


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(StoreConfig(retry_s=0))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "job" / "model"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"w" * 1000)
    (folder / "sub" / "run").write_text("#!/bin/sh\n")
    (folder / "sub" / "run").chmod(0o700)
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "shadow"
    path.write_text("the host's secret")
    return path


def tar_gz(path: Path, entries: Iterable[Entry]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                member = tarfile.TarInfo(entry[0])
                member.size = len(entry[1])
                archive.addfile(member, io.BytesIO(entry[1]))
    return path.as_uri()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_what_is_packed_comes_out_the_same(store: ObjectStore, model: Path, tmp_path: Path) -> None:
    uri = (tmp_path / "out" / "model.tar.gz").as_uri()
    assert pack(model, store, uri) == uri
    unpack(store, uri, tmp_path / "served")
    assert tree(tmp_path / "served") == ["sub", "sub/empty", "sub/run", "weights.bin"]
    assert (tmp_path / "served" / "weights.bin").read_bytes() == b"w" * 1000
    assert os.access(tmp_path / "served" / "sub" / "run", os.X_OK)
    assert (tmp_path / "served").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in (model.parent).iterdir()] == ["model"]


def test_equal_folders_make_equal_archives(store: ObjectStore, model: Path, tmp_path: Path) -> None:
    pack(model, store, f"{tmp_path}/1.tar.gz")
    os.utime(model / "weights.bin", (1, 1))
    pack(model, store, f"{tmp_path}/2.tar.gz")
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()


@pytest.mark.parametrize("compression", ["GZIP", "NONE"])
def test_links_to_the_host_are_left_out_and_told(
    store: ObjectStore, model: Path, secret: Path, tmp_path: Path, compression: str
) -> None:
    (model / "stolen").symlink_to(secret)
    (model / "relative").symlink_to("../../shadow")
    (model / "folder").symlink_to(tmp_path)
    (model / "chain").symlink_to("stolen")
    (model / "circle").symlink_to("circle")
    os.mkfifo(model / "pipe")
    told: list[str] = []
    uri = pack(model, store, f"{tmp_path}/out", compression, on_left_out=told.append)
    unpack(store, uri, tmp_path / "served")
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "served").rglob("*") if path.is_file())
    assert [line.split()[0] for line in told] == ["chain", "circle", "folder", "pipe", "relative", "stolen"]


def test_links_within_the_folder_are_kept_also_absolute_ones_of_the_container(
    store: ObjectStore, model: Path, tmp_path: Path
) -> None:
    (model / "best").symlink_to("/opt/ml/model/sub/run")
    (model / "sub" / "latest").symlink_to("../../model/weights.bin")
    unpack(store, pack(model, store, f"{tmp_path}/m.tar.gz"), tmp_path / "served")
    assert (tmp_path / "served" / "best").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "served" / "sub" / "latest").resolve() == tmp_path / "served" / "weights.bin"


def test_without_compression_files_are_stored_as_they_are_in_place_of_older_ones(
    store: ObjectStore, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "older").touch()
    (model / "a b%").write_text("odd")
    uri = pack(model, store, (tmp_path / "out" / "model").as_uri(), "NONE")
    assert tree(tmp_path / "out" / "model") == ["a b%", "sub", "sub/run", "weights.bin"]
    unpack(store, uri, tmp_path / "served")
    assert tree(tmp_path / "served") == ["a b%", "sub", "sub/run", "weights.bin"]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (("../evil", b"x"), "../evil"),
        (("/evil", b"x"), "/evil"),
        (("a/../../evil", b"x"), "a/../../evil"),
        (special("link", tarfile.SYMTYPE, "../evil"), "link"),
        (special("link", tarfile.SYMTYPE, "/etc/passwd"), "link"),
        (special("a/link", tarfile.SYMTYPE, "../../evil"), "a/link"),
        (special("hard", tarfile.LNKTYPE, "../evil"), "hard"),
        (special("hard", tarfile.LNKTYPE, "/etc/passwd"), "hard"),
        (special("hard", tarfile.LNKTYPE, "nothing"), "hard"),
        (special("disk", tarfile.BLKTYPE), "disk"),
        (special("tty", tarfile.CHRTYPE), "tty"),
        (special("pipe", tarfile.FIFOTYPE), "pipe"),
    ],
)
def test_a_hostile_member_is_named_and_nothing_is_written(
    store: ObjectStore, tmp_path: Path, entry: Entry, named: str
) -> None:
    uri = tar_gz(tmp_path / "m.tar.gz", [("good", b"x"), entry])
    with pytest.raises(ArchiveError, match=named):
        unpack(store, uri, tmp_path / "job" / "model")
    assert tree(tmp_path) == ["job", "m.tar.gz"]


def test_no_write_goes_through_a_link(store: ObjectStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    uri = tar_gz(
        tmp_path / "m.tar.gz",
        [
            special("d", tarfile.DIRTYPE),
            special("d/d", tarfile.DIRTYPE),
            special("d/d/up", tarfile.SYMTYPE, ".."),
            special("x", tarfile.SYMTYPE, "d/d/up/../../outside"),
            special("x/evil", tarfile.SYMTYPE, "d"),
        ],
    )
    with pytest.raises(ArchiveError, match="leads out|cannot be made"):
        unpack(store, uri, tmp_path / "model")
    assert tree(tmp_path) == ["m.tar.gz", "outside"]


def test_a_file_below_a_link_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    uri = tar_gz(tmp_path / "m.tar.gz", [special("a", tarfile.SYMTYPE, "b"), ("a/file", b"x")])
    with pytest.raises(ArchiveError, match="'a'"):
        unpack(store, uri, tmp_path / "model")


def test_links_within_an_archive_work(store: ObjectStore, tmp_path: Path) -> None:
    uri = tar_gz(
        tmp_path / "m.tar.gz",
        [
            ("./v1/w", b"weights"),
            special("./latest", tarfile.SYMTYPE, "v1"),
            special("v1/w2", tarfile.LNKTYPE, "./v1/w"),
        ],
    )
    unpack(store, uri, tmp_path / "model")
    assert (tmp_path / "model" / "latest" / "w2").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (UnpackLimits(max_bytes=99), "more than 99 bytes"),
        (UnpackLimits(max_entries=2), "more than 2 entries"),
    ],
)
def test_caps_on_bytes_and_entries_hold(store: ObjectStore, tmp_path: Path, limits: UnpackLimits, message: str) -> None:
    uri = tar_gz(tmp_path / "m.tar.gz", [(f"file-{n}", b"x" * 40) for n in range(3)])
    with pytest.raises(ArchiveError, match=message):
        unpack(store, uri, tmp_path / "model", limits)
    assert tree(tmp_path) == ["m.tar.gz"]


def test_a_bomb_is_stopped_by_its_ratio_long_before_its_end(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "RATIO_GRACE_BYTES", 1024 * 1024)
    uri = tar_gz(tmp_path / "m.tar.gz", [("zeros", bytes(16 * 1024 * 1024))])
    with pytest.raises(ArchiveError, match="more than 200 times its size"):
        unpack(store, uri, tmp_path / "model")


def test_an_endless_header_is_stopped(store: ObjectStore, tmp_path: Path) -> None:
    long_name = special("longname", tarfile.GNUTYPE_LONGNAME)
    long_name.size = 1 << 40
    head = long_name.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "m.tar.gz").write_bytes(gzip.compress(head + os.urandom(64) * 100_000))
    with pytest.raises(ArchiveError, match="header of more than"):
        unpack(store, f"{tmp_path}/m.tar.gz", tmp_path / "model")


@pytest.mark.parametrize("keep", [0.2, 0.7, 0.99])
def test_a_truncated_archive_is_damaged(store: ObjectStore, tmp_path: Path, keep: float) -> None:
    uri = tar_gz(tmp_path / "m.tar.gz", [("w", os.urandom(100_000))])
    whole = (tmp_path / "m.tar.gz").read_bytes()
    (tmp_path / "m.tar.gz").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(store, uri, tmp_path / "model")
    assert tree(tmp_path) == ["m.tar.gz"]


def test_a_flipped_bit_is_seen_by_the_checksum(store: ObjectStore, tmp_path: Path) -> None:
    uri = tar_gz(tmp_path / "m.tar.gz", [("w", os.urandom(100_000))])
    content = bytearray((tmp_path / "m.tar.gz").read_bytes())
    content[50_000] ^= 1
    (tmp_path / "m.tar.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(store, uri, tmp_path / "model")


@pytest.mark.parametrize(
    "content", [b"", b"plain weights", gzip.compress(b"no tar in here" * 100)], ids=["nothing", "text", "packed text"]
)
def test_what_is_no_archive_is_told_so(store: ObjectStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ArchiveError, match="no gzip archive|no tar archive"):
        unpack(store, f"{tmp_path}/model.bin", tmp_path / "model")


def test_a_model_that_is_not_there_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match="model.tar.gz"):
        unpack(store, f"{tmp_path}/model.tar.gz", tmp_path / "model")
    assert tree(tmp_path) == []


def test_nothing_is_unpacked_over_other_files(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    with pytest.raises(StorageError, match="not empty"):
        unpack(store, tar_gz(tmp_path / "m.tar.gz", [("a", b"x")]), tmp_path / "model")


@pytest.mark.parametrize("name", ["../evil", "/evil"])
def test_a_hostile_zip_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(name, "x")
    (tmp_path / "code").mkdir()
    with pytest.raises(ArchiveError, match=name):
        extract_zip(tmp_path / "m.zip", tmp_path / "code", UnpackLimits(), "m.zip")
    assert tree(tmp_path) == ["code", "m.zip"]
