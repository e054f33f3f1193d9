"""Archives written by strangers, taken apart safely: nothing is written outside the folder, caps hold while streaming.

Links are made last and files never written through them, so no chain of links can lead a write astray.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from raymaker.actors.errors import ArchiveError

MIB = 1024 * 1024
HEADER_BYTES = 4 * MIB
"""No honest entry's header is larger; tarfile would hold a dishonest one in memory."""
RATIO_GRACE_BYTES = 64 * MIB
"""Small archives may be packed as tightly as they like."""
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    ValueError,
    NotImplementedError,
)


@dataclass(frozen=True)
class UnpackLimits:
    """Caps on one archive. `max_ratio` is unpacked to packed bytes."""

    max_bytes: int = 100 * 1024 * MIB
    max_entries: int = 200_000
    max_ratio: float = 200.0

    def check(self, where: str, entry_count: int, size_bytes: int, packed_bytes: int | None = None) -> None:
        """Raise ArchiveError where an archive, or as much of it as was seen, is over a cap."""
        if entry_count > self.max_entries:
            raise ArchiveError(f"{where} has more than {self.max_entries} entries: pack fewer files")
        if size_bytes > self.max_bytes:
            raise ArchiveError(f"{where} unpacks to more than {self.max_bytes} bytes: make it smaller")
        if packed_bytes is not None and size_bytes > max(RATIO_GRACE_BYTES, self.max_ratio * packed_bytes):
            raise ArchiveError(
                f"{where} unpacks to more than {self.max_ratio:g} times its size, as archives do that are meant to "
                "fill a disk: store its files uncompressed"
            )


def safe_path(name: str, where: str) -> PurePosixPath:
    """A name from outside as a path that stays in its folder. Raises ArchiveError naming it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ArchiveError(f"{where}: the name {name!r} leads out of the folder; rename it and try again")
    return path


def extract_tar_gz(packed: IO[bytes], folder: Path, limits: UnpackLimits, where: str) -> None:
    """Extract a stream of tar.gz to `folder`, which must be empty."""
    counted = _Counted(packed)
    with gzip.GzipFile(fileobj=cast("IO[bytes]", counted), mode="rb") as unpacked:
        extract_tar(cast("IO[bytes]", unpacked), folder, limits, where, counted)


def extract_tar(
    source: IO[bytes], folder: Path, limits: UnpackLimits, where: str, packed: _Counted | None = None
) -> None:
    """Extract a stream of tar to `folder`, which must be empty; `packed` tells how much of it lay in the archive."""
    extraction = _Extraction(folder, limits, where)
    meter = _Meter(source, limits, where, packed)
    try:
        with tarfile.open(mode="r|", fileobj=cast("IO[bytes]", meter), bufsize=64 * 1024) as archive:
            for member in archive:
                meter.allow(member.size)
                _extract_member(archive, member, extraction)
                meter.allow(0)
        while meter.read(MIB):  # to the end, where gzip keeps its checksum
            pass
    except DAMAGED as error:
        raise ArchiveError(f"{where} is damaged, or no tar archive ({error}): pack it again") from error
    extraction.finish()


def extract_zip(source: Path, folder: Path, limits: UnpackLimits, where: str) -> None:
    """Extract a zip file to `folder`, which must be empty."""
    extraction = _Extraction(folder, limits, where)
    try:
        with zipfile.ZipFile(source) as archive:
            sizes = [member.file_size for member in archive.infolist()]
            limits.check(where, len(sizes), sum(sizes), source.stat().st_size)
            for member in archive.infolist():
                mode = member.external_attr >> 16
                if member.is_dir():
                    extraction.folder(member.filename)
                elif stat.S_ISLNK(mode):
                    raise ArchiveError(
                        f"{where}: {member.filename!r} is a link; pack with `zip -r`, which follows them"
                    )
                else:
                    with archive.open(member) as content:
                        extraction.file(member.filename, member.file_size, content, executable=bool(mode & 0o100))
    except (*DAMAGED, RuntimeError) as error:  # RuntimeError: a password is needed
        raise ArchiveError(f"{where} is damaged, or no zip archive ({error}): pack it again") from error


def _extract_member(archive: tarfile.TarFile, member: tarfile.TarInfo, extraction: _Extraction) -> None:
    if member.isdir():
        extraction.folder(member.name)
    elif member.issym():
        extraction.link(member.name, str(PurePosixPath(member.name).parent / member.linkname), symbolic=True)
    elif member.islnk():
        extraction.link(member.name, member.linkname, symbolic=False)
    elif member.isreg() and not member.issparse():
        content = archive.extractfile(member)
        assert content is not None
        extraction.file(member.name, member.size, content, executable=bool(member.mode & 0o100))
    else:
        extraction.refuse(member.name)


class _Extraction:
    """One archive on its way into one folder."""

    def __init__(self, folder: Path, limits: UnpackLimits, where: str) -> None:
        self._root = folder.resolve()
        self._limits = limits
        self._where = where
        self._entry_count = 0
        self._size_bytes = 0
        self._links: list[tuple[Path, Path, bool]] = []

    def folder(self, name: str) -> None:
        """Make a folder."""
        self._claim(name, 0).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, size_bytes: int, content: IO[bytes], *, executable: bool) -> None:
        """Write a file. Its caps are checked before, on the size that the archive tells."""
        path = self._claim(name, size_bytes)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as target:
                shutil.copyfileobj(content, target, MIB)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ArchiveError(f"{self._where}: {name!r} is both a file and a folder; pack it again") from None
        path.chmod(0o755 if executable else 0o644)

    def link(self, name: str, target: str, *, symbolic: bool) -> None:
        """Note a link to be made at the end; `target` is a path in the archive."""
        inside = os.path.normpath(target)
        if inside.startswith(("/", "../")) or inside == ".." or "\0" in target:
            raise ArchiveError(f"{self._where}: {name!r} links to {target!r}, outside the folder; pack the file itself")
        self._links.append((self._claim(name, 0), self._root / inside, symbolic))

    def refuse(self, name: str) -> None:
        """Raise for what has no place in a model."""
        raise ArchiveError(f"{self._where}: {name!r} is a device, a pipe or a sparse file; pack plain files only")

    def finish(self) -> None:
        """Make the links, and see that none leads out."""
        for path, target, symbolic in self._links:
            self._check_inside(path.parent)  # it may be a link that was made a moment ago
            self._check_inside(target)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if symbolic:
                    path.symlink_to(os.path.relpath(target, path.parent))
                else:
                    path.hardlink_to(target)
            except OSError as error:
                raise ArchiveError(f"{self._where}: the link {self._name(path)!r} cannot be made ({error})") from error
        for path, _, _ in self._links:
            self._check_inside(path)

    def _claim(self, name: str, size_bytes: int) -> Path:
        """Count an entry against the caps and tell where it belongs."""
        self._entry_count += 1
        self._size_bytes += size_bytes
        self._limits.check(self._where, self._entry_count, self._size_bytes)
        return self._root / safe_path(name, self._where)

    def _check_inside(self, path: Path) -> None:
        try:
            inside = path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):  # links in a circle
            inside = False
        if not inside:
            raise ArchiveError(f"{self._where}: {self._name(path)!r} leads out of the folder; pack the file itself")

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


class _Counted:
    """A stream that counts what was read from it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        return data


class _Meter(_Counted):
    """An unpacked stream that ends in an error when more comes than the caps, or the entry under way, allow."""

    def __init__(self, source: IO[bytes], limits: UnpackLimits, where: str, packed: _Counted | None) -> None:
        super().__init__(source)
        self._limits = limits
        self._where = where
        self._packed = packed
        self.allow(0)

    def allow(self, size_bytes: int) -> None:
        """Allow an entry's content and the header of the next."""
        self._stop_at = self.count + size_bytes + HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if self.count > self._stop_at:
            raise ArchiveError(f"{self._where} has a header of more than {HEADER_BYTES} bytes: pack it again with tar")
        self._limits.check(self._where, 0, self.count, self._packed.count if self._packed else None)
        return data
