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
    """Choose who gets the signal: all below init but those that do not listen and wait for one that does."""
    known = {process.pid: process for process in processes}
    below = [process for process in known.values() if init_pid in _ancestors(process, known)]
    waiting = {pid for process in below if process.listens for pid in _ancestors(process, known)}
    return [process for process in below if process.listens or process.pid not in waiting]


def started_ticks(pid: int) -> int | None:
    """When a process started, in the kernel's ticks; None where there is none, or only its remains."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in {"Z", "X"} else int(fields[19])


def _ancestors(process: Process, known: dict[int, Process]) -> set[int]:
    found: set[int] = set()
    parent = process.parent
    while parent and parent not in found:
        found.add(parent)
        parent = known[parent].parent if parent in known else 0
    return found


def _processes() -> Iterable[Process]:
    for entry in os.listdir(PROC):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None and fields[0] not in {"Z", "X"}:
            yield Process(int(entry), int(fields[1]), int(fields[19]), _listens(int(entry)))


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third (the state) on: the second may hold anything, even brackets."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


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
