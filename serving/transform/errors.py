"""What keeps an object from being transformed. Each fails its own object only, and its text is told as it is."""

from __future__ import annotations


class ObjectFailed(Exception):
    """One object cannot be transformed: the root."""


class RecordError(ObjectFailed):
    """What an object holds, or what came back for it, is not what the request says."""


class CallFailed(ObjectFailed):
    """The container did not score a payload, in as many tries as there are."""
