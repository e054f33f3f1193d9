"""How tests hurt a platform, and how they wait for it to mend: processes by their title, never by broad patterns."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str | Callable[[], str], timeout_s: float = 90.0) -> T:
    """Poll until `condition` gives something true, and return that; fail with `what` where it never does.

    `what` may be made when it is needed, to tell how things are then.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"did not happen within {timeout_s:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.2)
    return found


def kill_process(home: Path, title: str) -> list[int]:
    """`kill -9` the platform's own processes whose command line contains `title`; fail where there is none."""
    pids = [pid for pid in platform_processes(home) if title in command_line(pid)]
    assert pids, f"no process of the platform at {home} is called {title!r}"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids


def kill_everything(home: Path) -> None:
    """`kill -9` Ray's head and all that it started, as when a machine runs out of memory. Containers live on."""
    for pid in platform_processes(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def platform_processes(home: Path) -> list[int]:
    """The head's process, its descendants, and what shares their session."""
    leader = int(json.loads((home / "platform.json").read_text())["pid"])
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = (int(fields[1]), int(fields[3]))
    members = {pid for pid, (_, session) in parents.items() if session == leader} | {leader}
    while grown := {pid for pid, (parent, _) in parents.items() if parent in members} - members:
        members |= grown
    return sorted(members)


def command_line(pid: int) -> str:
    """A process's title, empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
