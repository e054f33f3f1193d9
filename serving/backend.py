"""The seam between an endpoint's front and whoever answers: one container here, several, or other deployments.

The front (`invocations.py`) knows the wire and no containers; a backend knows containers and writes no answers.

What is made for every request is a NamedTuple, here and below: a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from raymaker.serving.runtime_wire import Headers


class Invocation(NamedTuple):
    """One request as the front took it in: checked, whole, and with those headers only that travel."""

    headers: Headers
    body: bytes
    timeout_s: float | None = None
    """How long the model may take over it; None: as long as over any other."""


class Scored(NamedTuple):
    """A model's answer, good or bad. Header names are in lower case; `variant` is the one that was invoked."""

    status: int
    headers: Headers
    body: bytes
    variant: str
    log_stream_arn: str = ""
    """Where the container's log is read; it travels with an error."""


@dataclass(frozen=True)
class ScoredStream:
    """A model's good answer while it comes. `pieces` raises StreamBroken where the model breaks off."""

    status: int
    headers: Headers
    pieces: AsyncIterator[bytes]
    variant: str


@dataclass(frozen=True)
class StreamBegins:
    """How a streamed answer begins, where it crosses from one replica to another; its pieces follow."""

    status: int
    headers: Headers
    variant: str


@dataclass(frozen=True)
class StreamBreaks:
    """How a streamed answer ended in its middle, where it crosses. `code` is StreamBroken's."""

    code: str
    message: str


class Backend(Protocol):
    """Answers invocations. Belongs to one event loop."""

    async def invoke(self, invocation: Invocation) -> Scored:
        """Have the model answer. Raises Refusal where none can, ready to be sent."""

    def stream(self, invocation: Invocation) -> AbstractAsyncContextManager[ScoredStream]:
        """Have the model begin to answer; what is not taken when the block ends, nobody sends any more.

        Raises Refusal where none can, and where the model answers with an error.
        """
