"""Which function answers which operation, and what every such function is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from raymaker.actors.spec import InstanceType, Resources
from raymaker.platform.database.engine import Database
from raymaker.platform.pools.seen import SeenPool
from raymaker.platform.settings import Settings

Request = dict[str, Any]
Answer = dict[str, Any]


class Cluster(Protocol):
    """What an operation may ask of the cluster."""

    def instance_types(self) -> dict[str, InstanceType]:
        """The catalogue, by name."""

    def nodes(self) -> list[Resources]:
        """What each node could give in all, whatever runs there now: those that live, and those that may be added."""

    def is_open_ended(self) -> bool:
        """Whether nodes may be added of which nothing is known."""

    def pool(self) -> SeenPool:
        """The machines that run jobs, and those that wait. Raises ServiceUnavailable."""

    def wake(self) -> None:
        """Tell the reconciler that there is something to do. Never blocks, never raises."""


@dataclass(frozen=True)
class Context:
    """What an operation works with. `now` gives epoch seconds, `caller` is the access key id of the request."""

    account: str
    region: str
    settings: Settings
    database: Database
    cluster: Cluster
    now: Callable[[], float]
    caller: str = "unknown"


Handler = Callable[[Context, Request], Answer]
HANDLERS: dict[str, Handler] = {}


def operation(name: str) -> Callable[[Handler], Handler]:
    """Register the decorated function as the answer to operation `name`."""

    def register(handler: Handler) -> Handler:
        HANDLERS[name] = handler
        return handler

    return register
