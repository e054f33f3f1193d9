"""What goes wrong with the exchange, at every rank alike.

ExchangeError
├── RankLost     a rank, its machine or the hub has died or left
├── Mismatch     ranks made different calls
├── Stalled      a rank did not come to a call before the deadline
└── ArenaFull    there is no room for an array in the arena
"""

from __future__ import annotations


class ExchangeError(Exception):
    """The exchange cannot go on, at any rank. `rank` is the one to blame, None where none is."""

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class RankLost(ExchangeError):
    """A rank, its machine or the hub has died or left."""


class Mismatch(ExchangeError):
    """Ranks made different calls: another operation, dtype, length or root."""


class Stalled(ExchangeError):
    """A rank did not come to a call before the deadline."""


class ArenaFull(ExchangeError):
    """There is no room for an array in the arena."""
