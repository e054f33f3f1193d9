"""Makes the places that mounts need which lie in other mounts. What is mounted how is the drivers' matter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from raymaker.actors.spec import Mount


def in_order(mounts: Iterable[Mount]) -> list[Mount]:
    """Sort mounts so that each comes after those that it lies in. Pure."""
    return sorted(mounts, key=lambda mount: PurePosixPath(mount.target).parts)


def make_mount_points(mounts: Iterable[Mount]) -> None:
    """Make each mount's place in the source of the mount that it lies in, which may be read-only once it is mounted.

    What cannot be made here, since it lies elsewhere or belongs to another, is left to the driver to try.
    """
    outer: list[Mount] = []
    for mount in in_order(mounts):
        target = PurePosixPath(mount.target)
        holder = next((known for known in reversed(outer) if target.is_relative_to(known.target)), None)
        if holder is not None and Path(holder.source).is_dir():
            with contextlib.suppress(OSError):
                _make(Path(holder.source) / target.relative_to(holder.target), like=Path(mount.source))
        outer.append(mount)


def _make(place: Path, *, like: Path) -> None:
    if like.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    elif like.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(exist_ok=False)  # not through a link that somebody left there
