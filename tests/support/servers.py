"""Server processes of the test bed: a free port, a start that waits until it answers, an end by its own process id."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


def find_program(name: str, *more_folders: str, package: str) -> str:
    """The path of a program, or a failure that names the Debian package it comes in."""
    found = shutil.which(name) or next((f"{f}/{name}" for f in more_folders if Path(f, name).exists()), None)
    if found is None:
        pytest.fail(f"{name} is not installed (Debian package {package}): run scripts/test, which installs it")
    return found


_GIVEN: set[int] = set()
"""Every port that this process has given out: who was given one may not listen on it yet."""


def free_port(*offsets: int) -> int:
    """A TCP port of 127.0.0.1 that nothing listens on at this moment, that was given to nobody, nor is taken by chance.

    So it lies below the ports that the kernel hands out (32768 and up) and those of Serve's replicas (30000 and up).
    The same holds for the ports that lie `offsets` above it.
    """
    while True:
        first = random.randrange(20_000, 30_000 - max(offsets, default=0))
        ports = {first, *(first + offset for offset in offsets)}
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for port in ports - _GIVEN:
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            if not ports & _GIVEN:
                _GIVEN.update(ports)
                return first


def as_user(user: str | None) -> list[str]:
    """The start of a command line that runs the rest as another account; empty for None."""
    return ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"] if user else []


@contextlib.contextmanager
def running_server(command: Sequence[str], port: int, log: Path, *, user: str | None = None) -> Iterator[int]:
    """Run `command` until the block ends and yield its process id; it also ends with the test process, however killed.

    `user` runs it as another account of this machine (PostgreSQL refuses root).
    """
    with log.open("wb") as output:
        process = subprocess.Popen([*_setpriv(user), *command], stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_listening(process, port, log)
        yield process.pid
    finally:
        _end(process)


def _setpriv(user: str | None) -> list[str]:
    """A change of account makes the kernel forget the signal, so the signal is asked for after it."""
    return [*as_user(user), "setpriv", "--pdeathsig", "INT", "--"]


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:]
    message = f"{process.args!r} did not listen on port {port} (exit code {process.poll()}); its last output:\n{tail}"
    raise RuntimeError(message)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(2)  # SIGINT: what all of the servers here take as "finish at once, but properly"
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
