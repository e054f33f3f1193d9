"""What the parts of the exchange say to each other: calls, failures, and the seam to a job's other machines. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

DTYPES = {"float16": 2, "float32": 4, "float64": 8, "int32": 4, "int64": 8}
"""The element types that can be exchanged, each with its size in bytes."""
OPERATIONS = ("sum", "mean", "min", "max")
"""How all-reduce combines elements. `mean` is not defined for integers."""


@dataclass(frozen=True)
class Call:
    """One collective call, as every rank must make it. `count` is in elements; `root` a rank, of broadcasts only."""

    kind: str
    dtype: str = ""
    count: int = 0
    operation: str = ""
    root: int = -1

    def describe(self) -> str:
        """Say it in words, e.g. `all-reduce sum of 1024 float32`."""
        if not self.dtype:
            return self.kind
        how = f" {self.operation}" if self.operation else f" from rank {self.root}" if self.root >= 0 else ""
        return f"{self.kind}{how} of {self.count} {self.dtype}"


@dataclass(frozen=True)
class Failure:
    """Why no rank can go on. `rank` is the one to blame, None where none is. The first failure of a job stays.

    `lost` says that a machine went away, which is nobody's mistake: the same ranks may well succeed at another start.
    """

    message: str
    rank: int | None = None
    lost: bool = False


CLOSED = Failure("the exchange between the machines is closed: this job start has ended here")
"""What nobody is to blame for."""


class ExchangeError(Exception):
    """The exchange cannot go on. The message names the rank to blame, if there is one, and what it did."""

    def __init__(self, failure: Failure | str) -> None:
        self.failure = failure if isinstance(failure, Failure) else Failure(failure)
        super().__init__(self.failure.message)

    @property
    def rank(self) -> int | None:
        """The rank to blame, None where none is."""
        return self.failure.rank


@dataclass(frozen=True)
class Value:
    """A named value. `version` counts its changes from 1; `content_type` is application/json for documents."""

    version: int
    content: bytes
    content_type: str = "application/octet-stream"


class Values(Protocol):
    """Named values of one job, the same for all its ranks (push and pull). Threads may share it."""

    def put(self, name: str, content: bytes, content_type: str) -> int:
        """Replace a value; returns its new version."""

    def add(self, name: str, content: bytes, dtype: str) -> int:
        """Add an array to a value element by element, or set it where there is none; returns its new version."""

    def get(self, name: str, after_version: int = 0, wait_s: float = 0.0) -> Value | None:
        """Read a value newer than `after_version`, waiting up to `wait_s` for it; None where there is none."""


class Across(Protocol):
    """A job's other machines, as the hub of one machine sees them.

    Every hub makes the same calls in the same order, from one thread. Each raises ExchangeError when a machine
    dies, stalls or makes another call, at every machine within seconds.
    """

    values: Values

    def agree(self, call: Call) -> None:
        """See that every machine makes this call next."""

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine `data` (one machine's sum, min or max) with the other machines' in place. `operation` is not mean."""

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        """Copy the root machine's bytes to `data` of every other machine."""

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        """Collect every machine's bytes, in machine order: `into` is machine-count times as long as `data`."""

    def barrier(self) -> None:
        """Wait until every machine is here."""

    def fail(self, failure: Failure) -> None:
        """Tell the other machines that no rank can go on. The first failure of all stays."""

    def watch(self, on_failure: Callable[[Failure], None]) -> None:
        """Have `on_failure` called, once and from another thread, with the first failure of any machine."""

    def close(self) -> None:
        """Let go of the other machines. Closing twice does nothing."""
