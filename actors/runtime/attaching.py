"""Mounts that a container gets while it runs: made in its own namespace, from outside. Takes Linux, and root.

What is mounted is taken here with all that is mounted in it, and put into the container by a thread that goes there.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from raymaker.actors.runtime.mount_points import in_order
from raymaker.actors.spec import Mount

libc = ctypes.CDLL(None, use_errno=True)

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
"""Numbers of system calls, the same on all processors that Linux got since they came."""
AT_FDCWD = -100
AT_EMPTY_PATH, AT_RECURSIVE = 0x1000, 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY = 1
MS_PRIVATE = 1 << 18
CLONE_FS, CLONE_NEWNS = 0x200, 0x20000


def attach(namespace: int, mounts: Sequence[Mount]) -> None:
    """Mount each of these in a mount namespace, given as an open file. Raises OSError, after some may have been."""
    problems: list[BaseException] = []

    def work() -> None:
        trees: list[int] = []
        try:
            for mount in (ordered := in_order(mounts)):
                trees.append(_take(mount))
            is_folder = [Path(mount.source).is_dir() for mount in ordered]
            _call(libc.unshare, ctypes.c_int(CLONE_FS))  # this thread's root is no longer that of the process
            _call(libc.setns, ctypes.c_int(namespace), ctypes.c_int(CLONE_NEWNS))
            for mount, tree, is_dir in zip(ordered, trees, is_folder, strict=True):
                _put(tree, PurePosixPath(mount.target), is_folder=is_dir)
        except BaseException as error:
            problems.append(error)
        finally:
            for tree in trees:
                os.close(tree)

    thread = threading.Thread(target=work, name="attach")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


def _take(mount: Mount) -> int:
    """Get a mount of a file or folder that is nowhere yet, and that hears nothing of other mounts."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE
    tree = _call(
        libc.syscall,
        ctypes.c_long(OPEN_TREE),
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(os.fsencode(mount.source)),
        ctypes.c_uint(flags),
    )
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY if mount.read_only else 0, 0, MS_PRIVATE, 0)
    try:
        _call(
            libc.syscall,
            ctypes.c_long(MOUNT_SETATTR),
            ctypes.c_int(tree),
            ctypes.c_char_p(b""),
            ctypes.c_uint(AT_EMPTY_PATH | AT_RECURSIVE),
            ctypes.c_char_p(attributes),
            ctypes.c_size_t(len(attributes)),
        )
    except OSError:
        os.close(tree)
        raise
    return tree


def _put(tree: int, target: PurePosixPath, *, is_folder: bool) -> None:
    place = Path(target)
    if is_folder:
        place.mkdir(parents=True, exist_ok=True)
    elif not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    _call(
        libc.syscall,
        ctypes.c_long(MOVE_MOUNT),
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(os.fsencode(place)),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
    )


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> int:
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
