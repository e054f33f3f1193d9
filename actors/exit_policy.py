"""What an exit status says of who ended a container. Pure; what follows from it is the caller's matter."""

from __future__ import annotations

import signal

from raymaker.actors.runtime.base import ExitStatus

OUTSIDE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM})
"""What people, engines and kernels send to end a program that is not at fault."""


def is_outside_kill(status: ExitStatus, *, was_asked: bool = False) -> bool:
    """Tell whether something outside ended the container, so that the same program may well succeed at another try.

    `was_asked` marks an end that raymaker itself asked for, which is nobody's fault. Too much memory is the program's.
    """
    if was_asked or status.oom_killed:
        return False
    return status.lost or status.signal in OUTSIDE_SIGNALS
