"""The driver contract: what every container runtime does, in six calls.

Handles are frozen and serialisable, and enough to re-attach after a restart. Every driver passes the one suite in
`tests/contract/test_runtime.py`.
"""

from __future__ import annotations

import enum
import hashlib
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raymaker.actors.spec import ContainerSpec

LABEL_KIND = "raymaker.kind"
"""`training` or `scoring`."""
LABEL_OWNER = "raymaker.owner"
"""The lease (see `lease.py`) whose holder owns the container."""
LABEL_HOME = "raymaker.home"
"""The platform's home folder, so that two platforms on one engine never touch each other's containers."""
LABEL_GROUP = "raymaker.group"
"""The group of a container that has neighbours, and of their network."""

SIGNAL_BASE = 128
HINTS = {
    126: "a program could not be run: it is not executable, or made for another processor",
    127: "a program was not found, or is made for another processor",
    132: "an instruction that this processor does not have: native code was built for a newer one",
    134: "it gave up by itself, as a failed assertion in native code does",
    135: "a bus error: often the shared memory at /dev/shm is full",
    139: "a crash in native code",
}
"""What an exit code most often means, for people who should not have to look it up."""


def home_tag(home: Path) -> str:
    """A few characters that tell what belongs to this home from what belongs to another on the same machine."""
    return hashlib.sha256(str(home).encode()).hexdigest()[:6]


class Phase(enum.Enum):
    """Where a container is in its life."""

    RUNNING = "running"
    EXITED = "exited"
    MISSING = "missing"
    """The engine does not know it: removed, or made but never started."""


@dataclass(frozen=True)
class ContainerHandle:
    """Enough to find a container again: the driver's name, the container's name and the driver's own id for it."""

    driver: str
    name: str
    id: str


@dataclass(frozen=True)
class ExitStatus:
    """How a container ended. `code` is the exit code; `signal` is set where a signal ended it.

    `reason` says in words what the driver knows beyond the numbers. `lost` marks an end that was not the program's own
    doing (the engine restarted, the machine did): another attempt may well succeed.
    """

    code: int
    signal: int | None = None
    oom_killed: bool = False
    reason: str | None = None
    lost: bool = False

    @classmethod
    def of_code(
        cls, code: int, *, oom_killed: bool = False, reason: str | None = None, lost: bool = False
    ) -> ExitStatus:
        """Read an exit code as shells and engines write it: 128 + n where signal n ended the program."""
        number = code - SIGNAL_BASE if SIGNAL_BASE < code < SIGNAL_BASE + signal.NSIG else None
        return cls(code, number, oom_killed=oom_killed, reason=reason, lost=lost)

    def describe(self) -> str:
        """Say in words what the numbers mean, e.g. `exit code 137 (killed by SIGKILL, out of memory)`."""
        parts = []
        if self.signal is not None:
            parts.append(f"killed by {_signal_name(self.signal)}")
        if self.oom_killed:
            parts.append("out of memory")
        if self.reason:
            parts.append(self.reason)
        elif not self.oom_killed and self.code in HINTS:
            parts.append(HINTS[self.code])
        return f"exit code {self.code}" + (f" ({', '.join(parts)})" if parts else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True)
class ContainerState:
    """What `inspect` saw. `address` is `host:port`-less: the IP or host by which this machine reaches the container.

    `started_at` is in epoch seconds. `pid` is the first process's id on this machine, None where not known.
    """

    phase: Phase
    exit_status: ExitStatus | None = None
    started_at: float | None = None
    finished_at: float | None = None
    address: str | None = None
    pid: int | None = None


@dataclass(frozen=True)
class LogLine:
    """One line of output, without its newline. `time_ns` is epoch nanoseconds, strictly increasing per container."""

    time_ns: int
    text: str


class ContainerRuntime(Protocol):
    """Six calls. All block; run them in a thread where an event loop must go on."""

    name: str

    def start(self, spec: ContainerSpec) -> ContainerHandle:
        """Start `spec`, or re-attach to the container of that name, running or exited. Raises StartError."""

    def inspect(self, handle: ContainerHandle) -> ContainerState:
        """Tell where the container is. A container that is gone is MISSING, not an error."""

    def wait(self, handle: ContainerHandle, timeout_s: float | None = None) -> ExitStatus | None:
        """Block until it exits; None when `timeout_s` passes first. Raises ContainerMissing when it is gone."""

    def stop(self, handle: ContainerHandle, grace_s: float) -> None:
        """SIGTERM to its processes, then SIGKILL after `grace_s`. Stopping what has ended or is gone is no error."""

    def remove(self, handle: ContainerHandle) -> None:
        """Kill it if it runs, and leave nothing behind: no process, no file. Removing what is gone is no error."""

    def logs(self, handle: ContainerHandle, since_ns: int = 0, *, follow: bool = False) -> Iterator[LogLine]:
        """Yield lines later than `since_ns`, oldest first; with `follow`, go on until the container exits.

        Raises ContainerMissing where there is no such container.
        """

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        """List containers, running or not, that carry all of `labels`, each with its labels (for the reaper)."""


class WaitingContainers(Protocol):
    """Containers that wait inside their start to become others."""

    def start(self, spec: ContainerSpec) -> str | None:
        """Have one that waits become this container. Returns its id, None where none fits, or it came to nothing."""


class Leftovers(Protocol):
    """What owners may leave behind besides containers, of one kind, as the reaper finds and removes it."""

    name: str

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        """List what carries all of `labels` and is in no container's use, each with its labels."""

    def remove(self, handle: ContainerHandle) -> None:
        """Remove it. That it is gone is no error."""
