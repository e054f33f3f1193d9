"""One folder made of those that several containers left, with every file that any of them has.

Where two left different things under one name, the lowest rank's is kept and the others are told of. The folders are
hostile ground, as in `artifacts.py`: no link in them is followed, and none that leads out is kept.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from raymaker.actors.artifacts import inner_link
from raymaker.actors.store_errors import explain

FOLDER, FILE, LINK = "folder", "file", "link"
MESSAGES_COUNT = 20
"""How many conflicts are told one by one: people read them."""
NAMED_RANKS_COUNT = 8
NAME_LIMIT = 200
PIECE_BYTES = 1024 * 1024

Folders = Sequence[tuple[int, Path]]
"""Folders of containers, each with the container's rank."""


def merge_folders(
    parts: Folders,
    into: Path,
    *,
    seen_as: str = "/opt/ml/model",
    called: Callable[[int], str] = lambda rank: f"rank {rank}",
) -> list[str]:
    """Fill `into`, empty or missing, with what lies in `parts`; a part that is missing has nothing.

    Files are linked hard where the filesystem allows it: write to neither side afterwards. `seen_as` is where the
    containers saw their folders, so that their absolute links are understood; `called` names a rank for people.
    Returns, for people, what was not kept. Raises StorageError.
    """
    told = _Told(called)
    try:
        into.mkdir(parents=True, exist_ok=True)
        pending: list[tuple[Path, Folders]] = [(Path(), sorted(parts))]
        while pending:
            below, folders = pending.pop()
            for name, entries in _entries_by_name(folders, below, seen_as, told):
                _merge(entries, into / name, told)
                if entries[0].kind == FOLDER:
                    pending.append((name, [(entry.rank, entry.root) for entry in entries if entry.kind == FOLDER]))
    except OSError as error:
        raise explain(error, "merge what the containers left into", str(into)) from error
    return told.messages()


@dataclass(frozen=True)
class _Entry:
    """What one container left under one name. `link` is where a link ends, relative to where it lies."""

    rank: int
    root: Path
    name: Path
    kind: str
    link: str | None = None

    @property
    def path(self) -> Path:
        return self.root / self.name


def _entries_by_name(folders: Folders, below: Path, seen_as: str, told: _Told) -> list[tuple[Path, list[_Entry]]]:
    """Tell what lies in a folder, sorted by name; for each name the containers that left it, lowest rank first."""
    found: dict[Path, list[_Entry]] = {}
    for rank, root in folders:
        if not below.parts and not root.exists():
            continue
        for entry in _entries(rank, root, below, seen_as, told):
            found.setdefault(entry.name, []).append(entry)
    return sorted(found.items())


def _entries(rank: int, root: Path, below: Path, seen_as: str, told: _Told) -> Iterator[_Entry]:
    for path in sorted((root / below).iterdir()):
        name, mode = path.relative_to(root), path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield _Entry(rank, root, name, FOLDER)
        elif stat.S_ISREG(mode):
            yield _Entry(rank, root, name, FILE)
        elif not stat.S_ISLNK(mode):
            told.left_out(rank, name, "is a pipe, a socket or a device")
        elif (link := inner_link(root, path, seen_as)) is not None:
            yield _Entry(rank, root, name, LINK, link)
        else:
            told.left_out(rank, name, "is a link that leads out of the folder or nowhere")


def _merge(entries: list[_Entry], target: Path, told: _Told) -> None:
    """Put the first entry at `target`, and tell which of the others are not the same."""
    kept, *others = entries
    if conflicting := [other for other in others if not _are_same(kept, other)]:
        told.conflict(kept, conflicting)
    if kept.kind == FOLDER:
        target.mkdir()
    elif kept.link is not None:
        target.symlink_to(kept.link)
    else:
        _place(kept.path, target)


def _are_same(one: _Entry, other: _Entry) -> bool:
    if one.kind != other.kind or one.kind == FOLDER:
        return one.kind == other.kind
    if one.kind == LINK:
        return one.link == other.link
    with _open_file(one.path) as left, _open_file(other.path) as right:
        if os.fstat(left.fileno()).st_size != os.fstat(right.fileno()).st_size:
            return False
        while piece := left.read(PIECE_BYTES):
            if piece != right.read(PIECE_BYTES):
                return False
    return True


def _place(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where it cannot have one: on another filesystem, or owned by another."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        with _open_file(source) as content, target.open("xb") as copy:
            shutil.copyfileobj(content, copy, PIECE_BYTES)
            os.fchmod(copy.fileno(), stat.S_IMODE(os.fstat(content.fileno()).st_mode) & 0o777)


def _open_file(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


class _Told:
    """What could not be kept, as messages for people: the first ones, and how many more there were."""

    def __init__(self, called: Callable[[int], str]) -> None:
        self._called = called
        self._first: list[str] = []
        self._more_count = 0

    def conflict(self, kept: _Entry, others: Sequence[_Entry]) -> None:
        """Note who left different things under one name."""
        kinds = sorted({f"{'another' if other.kind == kept.kind else 'a'} {other.kind}" for other in others})
        self._add(
            f"{_shown(kept.name)}: {self._called(kept.rank)} left a {kept.kind}, which was kept, and "
            f"{self._ranks(others)} left {' or '.join(kinds)} there, which was not; let one rank write it, or "
            "give each a name of its own"
        )

    def left_out(self, rank: int, name: Path, why: str) -> None:
        """Note what is no part of a model."""
        self._add(f"{_shown(name)} of {self._called(rank)} {why}, and was left out")

    def messages(self) -> list[str]:
        """All of it; the last one counts those that are not told one by one."""
        return [*self._first, *([f"and {self._more_count} more like these"] if self._more_count else [])]

    def _add(self, message: str) -> None:
        if len(self._first) < MESSAGES_COUNT:
            self._first.append(message)
        else:
            self._more_count += 1

    def _ranks(self, entries: Sequence[_Entry]) -> str:
        names = [self._called(entry.rank) for entry in entries[:NAMED_RANKS_COUNT]]
        more_count = len(entries) - len(names)
        return ", ".join(names) + (f" and {more_count} more" if more_count else "")


def _shown(name: Path) -> str:
    """A name that a stranger chose, fit for a message."""
    text = repr(name.as_posix())
    return text if len(text) <= NAME_LIMIT else f"{text[:NAME_LIMIT]}…"
