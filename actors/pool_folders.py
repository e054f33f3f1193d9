"""Removes what warm pools have left on this machine once they have ended, by whatever way they did."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from raymaker.actors.mounting import remove_tree


def remove_ended(root: Path, living: Callable[[], Collection[str]]) -> list[str]:
    """Remove the folders of all warm pools but those that live, by name, and return the names of what was removed.

    `living` is asked after the folders were listed, and only where there are any: a pool that is new then is none of
    those. What a container has left there belongs to any user; links are not followed.
    """
    found = _folders(root)
    alive = frozenset(living()) if found else frozenset()
    ended = [path for path in found if path.name not in alive]
    for path in ended:
        remove_tree(path)
    return [path.name for path in ended]


def has_pools(root: Path) -> bool:
    """Tell whether there is a folder of a warm pool, ended or not."""
    return bool(_folders(root))


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
