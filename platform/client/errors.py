"""The errors of the Python client and the command line, drawn as one tree. Messages say what happened and what to do.

RaymakerError                the root: catch this to catch them all
├── WrongArgument            an argument that cannot be meant, told before anything is sent (a ValueError too)
├── PlatformUnreachable      nothing answers, or what answers cannot just now
├── RequestRefused           the platform's own error; `code` is its wire name
│   └── InvocationFailed     the scoring container answered with an error of its own
├── JobFailed                a training job ended without a model
├── EvaluationFailed         an evaluation came to no metrics
├── UpdateFailed             a change of a training job could not be made
├── EndpointFailed           an endpoint is not in service, or went back to what it served before
└── WaitTimeout              the caller's own limit on waiting passed (a TimeoutError too)
"""

from __future__ import annotations

from collections.abc import Sequence


class RaymakerError(Exception):
    """The root of everything that the client raises on purpose."""


class WrongArgument(RaymakerError, ValueError):
    """An argument that cannot be meant; it names the argument."""


class PlatformUnreachable(RaymakerError):
    """Nothing answers at the platform's URL, or what answers cannot just now."""


class RequestRefused(RaymakerError):
    """The platform refused a request. `code` is the wire's name of the reason, e.g. `ValidationException`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class InvocationFailed(RequestRefused):
    """The scoring container answered with an error; `status` and `body` are what it answered."""

    def __init__(self, code: str, message: str, status: int, body: str) -> None:
        super().__init__(code, message)
        self.status = status
        self.body = body


class _EndedBadly(RaymakerError):
    """Something that the platform ran failed: its name, why, and the last lines that it said."""

    noun: str

    def __init__(self, name: str, reason: str, log_lines: Sequence[str] = ()) -> None:
        last = f"\nIts last log lines:\n{chr(10).join(f'  {line}' for line in log_lines)}" if log_lines else ""
        super().__init__(f"{self.noun} {name} failed: {reason}{last}")
        self.name = name
        self.reason = reason
        self.log_lines = tuple(log_lines)


class JobFailed(_EndedBadly):
    """A training job failed."""

    noun = "training job"


class EvaluationFailed(_EndedBadly):
    """An evaluation failed, or was stopped."""

    noun = "evaluation"


class UpdateFailed(RaymakerError):
    """A change of a training job could not be made; the job goes on as before, or has ended."""

    def __init__(self, name: str, revision: int, reason: str) -> None:
        super().__init__(f"revision {revision} of training job {name} failed: {reason}")
        self.name = name
        self.revision = revision
        self.reason = reason


class EndpointFailed(_EndedBadly):
    """An endpoint could not be brought into service, or an update of it was rolled back."""

    noun = "endpoint"


class WaitTimeout(RaymakerError, TimeoutError):
    """The limit that the caller set on waiting passed; what was waited for goes on."""
