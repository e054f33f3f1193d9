"""What can go wrong between an endpoint and its container, drawn as one tree.

ForwardError
├── NothingSent     no connection: the container has seen nothing, and the request may be tried again
└── NoAnswer        the connection ended, or what came was no HTTP: the container may have acted on the request
StreamBroken        an answer that ended in its middle
"""

from __future__ import annotations


class ForwardError(Exception):
    """The container gave no answer."""


class NothingSent(ForwardError):
    """No connection could be made: the container has seen nothing, and the request may be tried again."""


class NoAnswer(ForwardError):
    """The connection ended, or what came was no HTTP: the container may have acted on the request."""


class StreamBroken(Exception):
    """An answer ended in its middle. `code` is SageMaker's: ModelInvocationTimeExceeded or StreamBroken."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
