"""raymaker's exchange, from inside a training container: many containers train one model together.

    import raymaker_exchange

    with raymaker_exchange.join() as exchange:
        gradients = exchange.empty((1000, 10), "float32")  # or any array of your own
        ...
        exchange.all_reduce(gradients, "mean")

Every container finds this package in /opt/ml/exchange. It stands alone: it needs Python 3.8 or later and nothing else,
and uses numpy where that is installed. The platform imports the same files, so both sides of the arena are one.
"""

from .calls import DTYPES, OPERATIONS
from .changes import Change
from .errors import ArenaFull, ExchangeError, Mismatch, RankLost, Stalled
from .exchange import Exchange, join
from .line import Value

__all__ = [
    "DTYPES",
    "OPERATIONS",
    "ArenaFull",
    "Change",
    "Exchange",
    "ExchangeError",
    "Mismatch",
    "RankLost",
    "Stalled",
    "Value",
    "join",
]
