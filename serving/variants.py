"""Which variant answers a request, and which shadows hear it too: weights, and a number drawn by the caller. Pure.

A table crosses to the router's replicas as plain values, so that weights change without making any of them anew.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymaker.serving.spec import EndpointSpec, VariantSpec


@dataclass(frozen=True)
class Route:
    """One fleet that requests may be sent to. `weight` counts against the other routes'; a shadow's is a share of 1."""

    variant: str
    fleet: str
    weight: float
    timeout_s: float


@dataclass(frozen=True)
class TrafficTable:
    """Where requests go. A variant may have several routes, while one fleet takes over from another."""

    routes: tuple[Route, ...]
    shadows: tuple[Route, ...] = ()

    def as_config(self) -> dict[str, Any]:
        """The table in plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrafficTable:
        """The table that `as_config` was made of."""
        return cls(*(tuple(Route(**route) for route in config[key]) for key in ("routes", "shadows")))


class Splitter:
    """Picks from one table. Numbers are evenly drawn from [0, 1)."""

    def __init__(self, table: TrafficTable) -> None:
        self._table = table
        self._all = _Shares(table.routes)
        names = {route.variant for route in table.routes}
        self._of_variant = {name: _Shares([r for r in table.routes if r.variant == name]) for name in names}

    def choose(self, number: float, wanted: str | None = None) -> Route | None:
        """The route that `number` falls on: of all of them, or of the variant that is wanted.

        A weight of 0 takes no traffic but what asks for the variant by name. None where nothing takes it: all weights
        are 0, or there is no such variant.
        """
        if wanted is None:
            return self._all.pick(number)
        shares = self._of_variant.get(wanted)
        return None if shares is None else shares.pick(number) or shares.routes[0]

    def shadows(self, number: float) -> list[Route]:
        """The shadows that hear a request: each hears its share of all requests."""
        return [shadow for shadow in self._table.shadows if number < shadow.weight]


class _Shares:
    """Routes side by side, each as wide as its weight."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = list(routes)
        self._ends = list(itertools.accumulate(route.weight for route in self.routes))

    def pick(self, number: float) -> Route | None:
        whole = self._ends[-1] if self._ends else 0.0
        if whole <= 0:
            return None
        return self.routes[bisect.bisect_right(self._ends, min(number, ALMOST_ONE) * whole)]


ALMOST_ONE = 1 - 2**-53


def traffic_of(spec: EndpointSpec) -> TrafficTable:
    """The table of an endpoint's own variants. A shadow's weight counts against the production variants' sum."""
    whole = sum(variant.weight for variant in spec.variants)
    return TrafficTable(
        tuple(_route(spec, variant, variant.weight) for variant in spec.variants),
        tuple(_route(spec, shadow, min(1.0, shadow.weight / whole) if whole else 0.0) for shadow in spec.shadows),
    )


def traffic_between(new: EndpointSpec, old: EndpointSpec, share: float) -> TrafficTable:
    """The table while one deployment takes over from another: `share` of the requests goes to the new one's variants.

    Whoever asks for a variant by name is split in the same way where both have it. Shadows stay the old one's until all
    traffic is the new one's.
    """
    after, before = traffic_of(new), traffic_of(old)
    routes = (*_scaled(after.routes, share), *_scaled(before.routes, 1 - share))
    return TrafficTable(routes, after.shadows if share >= 1 else before.shadows)


def _scaled(routes: Sequence[Route], share: float) -> list[Route]:
    whole = sum(route.weight for route in routes) or 1.0
    return [dataclasses.replace(route, weight=share * route.weight / whole) for route in routes]


def _route(spec: EndpointSpec, variant: VariantSpec, weight: float) -> Route:
    return Route(variant.name, spec.fleet_name(variant), weight, variant.scoring.invocation_timeout_s)
