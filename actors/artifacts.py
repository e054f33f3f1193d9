"""Model archives: a folder packed and stored, an archive or a plain folder fetched and unpacked.

Both sides are hostile ground: a container may leave links to this machine's files in the folder that is packed, and
an archive may try to write outside the folder, or to fill the disk. Nothing half-made stays on either side.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from raymaker.actors.errors import ArchiveError, StorageError
from raymaker.actors.extraction import UnpackLimits, extract_tar_gz, safe_path
from raymaker.actors.storage import ObjectStore, child_uri
from raymaker.actors.store_errors import explain

GZIP_MAGIC = b"\x1f\x8b"
COMPRESSION_LEVEL = 1
"""Weights hardly compress at any level; text takes a seventh of the usual level's time, and a quarter more bytes."""


def pack(
    folder: Path,
    store: ObjectStore,
    uri: str,
    compression: str = "GZIP",
    *,
    seen_as: str = "/opt/ml/model",
    on_left_out: Callable[[str], None] = lambda _: None,
) -> str:
    """Store a folder at `uri`, as a tar.gz or with `NONE` file by file in place of what lies there. Returns `uri`.

    Equal folders make equal archives. `seen_as` is where the container saw the folder, so that its absolute links are
    understood. What is no file, folder or link within the folder is left out, and `on_left_out` is told why.
    """
    try:
        if compression == "NONE":
            _store_files(folder, store, uri, seen_as, on_left_out)
        else:
            _store_archive(folder, store, uri, seen_as, on_left_out)
    except OSError as error:
        raise explain(error, "pack", str(folder)) from error
    return uri


def unpack(store: ObjectStore, uri: str, folder: Path, limits: UnpackLimits | None = None) -> None:
    """Bring a model to `folder`, which must be empty or missing: an archive unpacked, a prefix of plain files as it is.

    `folder` appears whole or not at all. Raises ArchiveError, StorageError.
    """
    limits = limits or UnpackLimits()
    if folder.exists() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty: nothing is unpacked over what lies there")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".raymaker-", suffix=".part", dir=folder.parent))
        try:
            made.chmod(0o755)
            if store.exists(uri):
                _unpack_archive(store, uri, made, limits)
            else:
                _fetch_files(store, uri, made, limits)
            made.replace(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise explain(error, f"unpack {uri} to", str(folder)) from error


def inner_link(folder: Path, path: Path, seen_as: str) -> str | None:
    """Where a link ends at last, relative to where it lies; None where that is not within the folder."""
    target = path.readlink()
    if target.is_relative_to(seen_as):
        target = folder / target.relative_to(seen_as)
    try:
        end = (path.parent / target).resolve(strict=True)
    except (OSError, RuntimeError):  # nowhere, or round in circles
        return None
    return os.path.relpath(end, path.parent.resolve()) if end.is_relative_to(folder.resolve()) else None


def _store_archive(
    folder: Path, store: ObjectStore, uri: str, seen_as: str, on_left_out: Callable[[str], None]
) -> None:
    # By way of a finished file: pyarrow cannot take back an object that is half written, and retries need the bytes.
    with tempfile.NamedTemporaryFile(prefix=".raymaker-", suffix=".part", dir=folder.parent) as packed:
        with (
            gzip.GzipFile("", "wb", COMPRESSION_LEVEL, packed, mtime=0) as compressed,
            tarfile.open(mode="w|", fileobj=compressed, format=tarfile.PAX_FORMAT) as archive,
        ):
            for name, path, link in _entries(folder, seen_as, on_left_out):
                _add(archive, name, path, link)
        packed.flush()
        store.upload(Path(packed.name), uri)


def _add(archive: tarfile.TarFile, name: str, path: Path, link: str | None) -> None:
    """Add one entry, with nothing in its header that differs between two runs."""
    member = tarfile.TarInfo(name)
    if link is not None:
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, link, 0o777
        archive.addfile(member)
    elif path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    else:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as content:
            status = os.fstat(content.fileno())
            member.size = status.st_size
            member.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            archive.addfile(member, content)


def _store_files(folder: Path, store: ObjectStore, uri: str, seen_as: str, on_left_out: Callable[[str], None]) -> None:
    store.delete_prefix(uri)
    for name, path, link in _entries(folder, seen_as, on_left_out):
        real = path.parent / link if link is not None else path
        if real.is_file():
            store.upload(real, child_uri(uri, name))
        elif link is not None:
            on_left_out(f"{name} is a link to a folder, which only an archive can keep, and was left out")


def _entries(
    folder: Path, seen_as: str, on_left_out: Callable[[str], None], below: str = ""
) -> Iterator[tuple[str, Path, str | None]]:
    """Yield what may be packed, sorted: name, path and, for a link, its target relative to where it lies."""
    for path in sorted((folder / below).iterdir()):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            link = inner_link(folder, path, seen_as)
            if link is None:
                on_left_out(f"{name} is a link that leads out of the folder or nowhere, and was left out")
            else:
                yield name, path, link
        elif stat.S_ISDIR(mode):
            yield name, path, None
            yield from _entries(folder, seen_as, on_left_out, name)
        elif stat.S_ISREG(mode):
            yield name, path, None
        else:
            on_left_out(f"{name} is a pipe, a socket or a device, and was left out")


def _unpack_archive(store: ObjectStore, uri: str, folder: Path, limits: UnpackLimits) -> None:
    with store.open_read(uri) as packed:
        if not packed.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC):
            raise ArchiveError(f"{uri} is no gzip archive: pack the model with `tar -czf model.tar.gz -C FOLDER .`")
        extract_tar_gz(packed, folder, limits, uri)


def _fetch_files(store: ObjectStore, uri: str, folder: Path, limits: UnpackLimits) -> None:
    objects = store.list_objects(f"{uri.rstrip('/')}/")
    limits.check(uri, len(objects), sum(item.size_bytes for item in objects))
    for item in objects:
        store.download(item.uri, folder / safe_path(item.relative_name, item.uri))
