"""SIGTERM to those processes of a container that it should reach, so that user code can say goodbye.

An engine hands SIGTERM to a container's first program only. Where that is a shell that merely waits for the real one,
the shell dies of it, and the real one is killed unwarned. Here the signal goes to the program that listens.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SHELLS = frozenset({"sh", "ash", "bash", "busybox", "dash", "ksh", "mksh", "zsh"})
ENDED = {"Z", "X"}
"""States of what is only the remains of a process."""
TERM_BIT = 1 << (signal.SIGTERM - 1)


@dataclass(frozen=True)
class Process:
    """What matters here of a line in the process table. `listens`: it catches SIGTERM, or waits for it.

    `started_ticks` tells it from a later process of the same id.
    """

    pid: int
    parent: int
    started_ticks: int
    listens: bool
    is_shell: bool = False


def request_end(init_pid: int) -> bool:
    """Send SIGTERM into the container whose init process this is; False where nothing could be sent.

    The init itself, which would only pass the signal on, is left out.
    """
    sent = False
    for process in chosen(list(_processes()), init_pid):
        with contextlib.suppress(OSError):  # it ended by itself, or belongs to somebody else
            _send(process)
            sent = True
    return sent


def chosen(processes: Iterable[Process], init_pid: int) -> list[Process]:
    """Choose who below init gets the signal.

    Not those that do not listen but wait for one that does. Not what a listening program started either: it answers for
    its own. A shell cannot, since it runs its trap only when what it waits for has ended.
    """
    known = {process.pid: process for process in processes}
    below = {process.pid: process for process in known.values() if init_pid in _ancestors(process, known)}
    waiting = {pid for process in below.values() if process.listens for pid in _ancestors(process, known)}
    answering = {pid for pid, process in below.items() if process.listens and not process.is_shell}
    return [
        process
        for pid, process in below.items()
        if (process.listens or pid not in waiting) and answering.isdisjoint(_ancestors(process, known))
    ]


def started_ticks(pid: int) -> int | None:
    """When a process started, in the kernel's ticks; None where there is none, or only its remains."""
    fields = _stat(pid)
    return None if fields is None or fields[1] in ENDED else int(fields[20])


def _ancestors(process: Process, known: dict[int, Process]) -> set[int]:
    found: set[int] = set()
    parent = process.parent
    while parent and parent not in found:
        found.add(parent)
        parent = known[parent].parent if parent in known else 0
    return found


def _processes() -> Iterable[Process]:
    for pid in (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()):
        if (fields := _stat(pid)) is not None and fields[1] not in ENDED:
            yield Process(pid, int(fields[2]), int(fields[20]), _listens(pid), is_shell=fields[0] in SHELLS)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the second (the name, which may hold anything, even brackets) on."""
    try:
        before, _, after = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return [before.partition("(")[2], *after.split()]


def _listens(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in {"SigCgt", "SigBlk"} and int(value, 16) & TERM_BIT:
                return True
    return False


def _send(process: Process) -> None:
    descriptor = os.pidfd_open(process.pid)
    try:
        if started_ticks(process.pid) == process.started_ticks:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    finally:
        os.close(descriptor)
