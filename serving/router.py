"""The backend of an endpoint of several variants: picks one by weight and asks its fleet; shadows get a copy.

Knows fleets by name only. How a fleet is reached is a `Fleet` that it is given: in a replica, a Serve handle.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from raymaker.serving import runtime_wire as wire
from raymaker.serving.activity import Load
from raymaker.serving.backend import Invocation, Scored, ScoredStream
from raymaker.serving.fleet_handle import REPLICA_WAIT_S, Fleet, streaming, telling
from raymaker.serving.runtime_wire import Refusal, WireAnswer
from raymaker.serving.shadows import Mirror
from raymaker.serving.variants import Route, Splitter, TrafficTable

BLAMES_REQUEST = frozenset({400, 404, 408, 413})
"""The statuses of refusals that are the client's own doing."""


class Router:
    """A Backend. Belongs to one event loop."""

    def __init__(
        self,
        connect: Callable[[str], Fleet],
        mirror: Mirror,
        load: Load,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._connect = connect
        self._mirror = mirror
        self._load = load
        self._draw = draw
        self._fleets: dict[str, Fleet] = {}
        self._splitter = Splitter(TrafficTable(()))

    def set_table(self, table: TrafficTable) -> None:
        """Send requests by `table` from now on. Those under way stay where they are."""
        fleets = {route.fleet for route in (*table.routes, *table.shadows)}
        self._fleets = {fleet: self._fleets.get(fleet) or self._connect(fleet) for fleet in fleets}
        self._splitter = Splitter(table)

    async def invoke(self, invocation: Invocation) -> Scored:
        """Have one variant answer. Raises Refusal where it cannot."""
        route = self._choose(invocation)
        began = asyncio.get_running_loop().time()
        answer = await self._ask(route, invocation)
        for shadow in self._splitter.shadows(self._draw()):
            took_s = asyncio.get_running_loop().time() - began
            self._mirror.copy(shadow.variant, invocation, answer, took_s, functools.partial(self._ask, shadow))
        return answer

    @asynccontextmanager
    async def stream(self, invocation: Invocation) -> AsyncIterator[ScoredStream]:
        """Have one variant answer piece by piece; shadows get no copy. Raises Refusal where it cannot."""
        route = self._choose(invocation)
        fleet, whose = self._fleets[route.fleet], f"variant {route.variant}"
        with self._counting(route) as count:
            async with streaming(fleet, invocation, whose, self._allowed_s(route, invocation)) as scored:
                count(scored.status)
                yield scored

    def _choose(self, invocation: Invocation) -> Route:
        wanted = next((value for name, value in invocation.headers if name == wire.TARGET_VARIANT), None)
        route = self._splitter.choose(self._draw(), wanted.decode() if wanted is not None else None)
        if route is None:
            raise Refusal(wire.overloaded("no variant of this endpoint takes traffic: give one of them a weight"))
        return route

    async def _ask(self, route: Route, invocation: Invocation) -> Scored:
        """Ask a fleet. Serve itself asks another replica where the first cannot have seen the request."""
        with self._counting(route) as count, telling(f"variant {route.variant}"):
            async with asyncio.timeout(self._allowed_s(route, invocation)):
                answer = await self._fleets[route.fleet].invoke(invocation)
            if isinstance(answer, WireAnswer):
                raise Refusal(answer)
            count(answer.status)
        return answer

    @contextmanager
    def _counting(self, route: Route) -> Iterator[Callable[[int], None]]:
        """Count how a fleet answers: with the status that the block says, or with a refusal."""
        began_at = self._load.begin()
        try:
            yield lambda status: self._load.fleet_answered(route.fleet, began_at, status)
        except Refusal as refusal:
            status = refusal.answer.status
            self._load.fleet_answered(route.fleet, began_at, status if status in BLAMES_REQUEST else 500)
            raise

    def _allowed_s(self, route: Route, invocation: Invocation) -> float:
        return (invocation.timeout_s or route.timeout_s) + REPLICA_WAIT_S
