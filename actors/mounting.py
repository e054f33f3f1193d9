"""Filesystems that this machine's processes mount below their own folders, for containers to see: made, found, removed.

Takes root. A container sees what was mounted before it started, where its engine sees what this process does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import socket
import struct
from pathlib import Path
from urllib.parse import urlsplit

from docker.utils import kwargs_from_env

from raymaker.actors.runtime.docker_engine import DEFAULT_SOCKET

libc = ctypes.CDLL(None, use_errno=True)

MS_NOSUID, MS_NODEV, MS_BIND = 2, 4, 4096
MNT_DETACH = 2
MOUNTS = Path("/proc/self/mountinfo")
MOUNT_POINT_FIELD = 4
UNSAFE = re.compile(r"[,:\\]")
"""What separates the options of a mount."""


def may_mount(driver: str) -> bool:
    """Tell whether this process may mount, and containers of the driver would see what it mounts."""
    return os.geteuid() == 0 and (driver != "docker" or _engine_is_beside())


def lay_over(lower: Path, upper: Path, work: Path, target: Path) -> bool:
    """Show the folder `lower` at `target` so that what is written there goes to `upper`; False where that cannot be.

    All three are made where they are missing, `upper` and `work` on one filesystem.
    """
    for folder in (lower, upper, work, target):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work},volatile"  # else unmounting writes all to the disk
    if any(UNSAFE.search(str(path)) for path in (lower, upper, work)):
        return False
    arguments = (b"overlay", os.fsencode(target), b"overlay", ctypes.c_ulong(MS_NOSUID | MS_NODEV))
    return not libc.mount(*arguments, os.fsencode(options))


def bind(source: Path, target: Path) -> None:
    """Show what is at `source` at `target` too. Raises OSError."""
    if libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(MS_BIND), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def read_ahead(mount_point: Path, size_bytes: int) -> None:
    """Have the kernel read that far ahead in files of a filesystem, where it lets this process say so."""
    device = mount_point.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    with contextlib.suppress(OSError):
        setting.write_text(str(size_bytes // 1024))


def mounts_below(folder: Path) -> list[Path]:
    """Where anything is mounted at a folder or below it, what was mounted last first."""
    points = [Path(_decode(line.split(" ")[MOUNT_POINT_FIELD])) for line in MOUNTS.read_text().splitlines()]
    return [point for point in reversed(points) if point.is_relative_to(folder)]


def unmount_below(folder: Path) -> None:
    """Take away all that is mounted at a folder or below it, also what is still in use, or whose server has died."""
    for point in mounts_below(folder):
        libc.umount2(os.fsencode(point), MNT_DETACH)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, but nothing of what is mounted there. That it is gone is no error."""
    unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)


def empty_tree(folder: Path) -> None:
    """Take away what is in a folder, and what is mounted in it; the folder is made where it is missing."""
    unmount_below(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _engine_is_beside() -> bool:
    """Tell whether the container engine sees the mounts that this process sees."""
    address = urlsplit(kwargs_from_env().get("base_url", DEFAULT_SOCKET).replace("http+unix", "unix"))
    if address.scheme != "unix":
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(1.0)
        engine.connect(address.path)
        found = engine.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", found)
        return Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
    return False


def _decode(field: str) -> str:
    """Read a path as the kernel writes it, with odd characters in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
