"""What an endpoint is asked to serve, as frozen values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.forward import ANSWER_LIMIT_BYTES
from raymaker.serving.graph.document import Graph, Placement
from raymaker.serving.scaling import ScalingSpec

FRONT = "front"
"""The name of the replicas that an endpoint's requests come in at."""
MOST_CALLS_AT_ONCE = 4
"""How many calls of one container a request may have under way before its fleet counts as overloaded."""
JSON_LINES = "JsonLines"
PARQUET = "Parquet"


@dataclass(frozen=True)
class CaptureSpec:
    """What of an endpoint's invocations is captured, and where it is kept. `sampled_share` lies between 0 and 1."""

    destination_uri: str
    sampled_share: float = 1.0
    captures_input: bool = True
    captures_output: bool = True
    csv_types: frozenset[str] = frozenset()
    json_types: frozenset[str] = frozenset()
    """Content types whose data is kept as the text that it is; all other data is kept as base64."""
    format: str = JSON_LINES
    """JSON_LINES or PARQUET."""


@dataclass(frozen=True)
class AsyncSpec:
    """How an endpoint takes asynchronous invocations: where answers go, who is told, how many at once per replica."""

    output_uri: str
    failure_uri: str | None = None
    """None: beside the answers."""
    success_topic: str | None = None
    error_topic: str | None = None
    """URLs of webhooks."""
    max_concurrent: int = 4
    invocation_timeout_s: float = 900.0
    """How long one may take that does not say so itself."""


@dataclass(frozen=True)
class GraphSpec:
    """The several containers of a variant, by hostname, and how they work together."""

    containers: Mapping[str, ScoringSpec]
    graph: Graph
    is_direct: bool = False
    """Whether each request names the container that it wants."""
    scalings: Mapping[str, ScalingSpec] = field(default_factory=dict)
    """How the containers are scaled that have a fleet of their own, by hostname; the others as their variant is."""

    @property
    def distant(self) -> list[str]:
        """The containers that have a fleet of their own, in the graph's order."""
        return [target.name for target, place in self.graph.targets().items() if place is Placement.DISTRIBUTED]


@dataclass(frozen=True)
class VariantSpec:
    """One variant of an endpoint: what serves, on how many machines, and its part of the traffic.

    `weight` counts against those of the production variants. Of several containers `scoring` is the first: time limits
    and the like are the same for all.
    """

    name: str
    replica_count: int
    instance_type: InstanceType
    scoring: ScoringSpec
    weight: float = 1.0
    max_pending_requests: int = 200
    """How many requests one replica takes at once; more are answered with ServiceUnavailable."""
    graph: GraphSpec | None = None
    """None: there is one container."""
    scaling: ScalingSpec | None = None
    """None: there are always `replica_count` replicas, else as many to begin with."""
    throttles: bool = False
    """Whether requests that are too many are told to slow down (429) instead of that there is no room (503)."""

    @property
    def most_count(self) -> int:
        """The most replicas that there may be."""
        return self.replica_count if self.scaling is None else self.scaling.max_count

    @property
    def scorings(self) -> Mapping[str | None, ScoringSpec]:
        """The containers that each replica holds, by hostname; one that is alone has none."""
        if self.graph is None:
            return {None: self.scoring}
        distant = self.graph.distant
        return {hostname: scoring for hostname, scoring in self.graph.containers.items() if hostname not in distant}

    @property
    def is_apart(self) -> bool:
        """Whether all its containers have fleets of their own: it needs no replicas, and the front runs its graph."""
        return not self.scorings

    @property
    def resources(self) -> Resources:
        """What a replica needs: its containers' even share of an instance."""
        whole = self.instance_type.resources
        if self.graph is None:
            return whole
        held, count = len(self.scorings), len(self.graph.containers)
        return Resources(whole.cpus * held / count, whole.memory_bytes * held // count, whole.gpus * held / count)

    @property
    def parts(self) -> Mapping[str, VariantSpec]:
        """The fleets of the containers that have one of their own, by hostname, as variants of one container.

        What a step is given may be as large as another's answer, whatever a client may send.
        """
        if self.graph is None:
            return {}
        each = self.instance_type.resources.share(len(self.graph.containers))
        own = self.graph.scalings
        return {
            hostname: dataclasses.replace(
                self,
                name=f"{self.name}.{hostname}",
                scaling=own.get(hostname, self.scaling),
                replica_count=own[hostname].min_count if hostname in own else self.replica_count,
                instance_type=dataclasses.replace(self.instance_type, resources=each),
                scoring=dataclasses.replace(self.graph.containers[hostname], max_body_bytes=ANSWER_LIMIT_BYTES),
                max_pending_requests=self.max_pending_requests * MOST_CALLS_AT_ONCE,
                graph=None,
            )
            for hostname in self.graph.distant
        }


@dataclass(frozen=True)
class EndpointSpec:
    """One generation of one endpoint; the name never changes. A replica has one with its own variant alone.

    `generation` grows with every change, `revision` only where replicas are to be made anew.
    """

    endpoint_name: str
    config_name: str
    generation: int
    variants: tuple[VariantSpec, ...]
    shadows: tuple[VariantSpec, ...] = ()
    revision: int = 1
    endpoint_arn: str = ""
    """Names region and account, from which the ARN of the log stream is made that a ModelError carries."""
    capture: CaptureSpec | None = None
    """None: nothing is captured."""
    asynchronous: AsyncSpec | None = None
    """None: there are no asynchronous invocations."""
    is_routed: bool = False
    """Whether the front is a router in any case."""
    step: int | None = None
    """The step that a rollout is at which takes its time: the front is watched. Each step has a front of its own."""

    @property
    def is_simple(self) -> bool:
        """Whether the front's own replicas hold the containers: there is nothing to choose from."""
        return not self.is_routed and len(self.variants) == 1 and not self.shadows and not self.variants[0].parts

    @property
    def fleets(self) -> tuple[VariantSpec, ...]:
        """What stands behind the front: the variants, each behind its parts. A simple endpoint has none.

        Of a variant whose containers are all apart there are the parts alone.
        """
        if self.is_simple:
            return ()
        return tuple(
            each
            for variant in (*self.variants, *self.shadows)
            for each in (*variant.parts.values(), *(() if variant.is_apart else (variant,)))
        )

    @property
    def apart(self) -> tuple[VariantSpec, ...]:
        """The variants whose containers are all apart: the front runs their graphs."""
        return tuple(variant for variant in (*self.variants, *self.shadows) if variant.is_apart)

    def fleet_name(self, variant: VariantSpec) -> str:
        """What this revision's replicas of a variant are called; a simple endpoint's are the front's."""
        return FRONT if self.is_simple else f"{variant.name}@{self.revision}"

    def instances_of(self, variant: VariantSpec) -> list[str]:
        """The fleets of which each has a replica on every instance of a variant, as long as none fails.

        Containers that are scaled by themselves do not count, unless all are.
        """
        if not variant.is_apart or variant.graph is None:
            return [self.fleet_name(variant)]
        parts = variant.parts
        alike = [hostname for hostname in parts if hostname not in variant.graph.scalings]
        return [self.fleet_name(parts[hostname]) for hostname in alike or parts]

    def only(self, variant: VariantSpec) -> EndpointSpec:
        """This endpoint as a replica of one variant sees it."""
        return dataclasses.replace(self, variants=(variant,), shadows=())

    @property
    def variant_names(self) -> list[str]:
        """The variants that answer, in the configuration's order."""
        return [variant.name for variant in self.variants]

    @property
    def is_multi_model(self) -> bool:
        """Whether any variant serves many models."""
        return any(variant.scoring.multi_model for variant in self.variants)

    @property
    def has_graph(self) -> bool:
        """Whether any variant has several containers."""
        return any(variant.graph is not None for variant in self.variants)

    @property
    def is_direct(self) -> bool:
        """Whether any variant has containers that requests name."""
        return any(variant.graph is not None and variant.graph.is_direct for variant in self.variants)

    @property
    def max_body_bytes(self) -> int:
        """The largest body that any variant takes."""
        return max(variant.scoring.max_body_bytes for variant in self.variants)

    @property
    def max_pending_requests(self) -> int:
        """How many requests one replica of the front takes at once."""
        return sum(variant.max_pending_requests for variant in self.variants)

    @property
    def throttles(self) -> bool:
        """Whether requests that are too many are told to slow down."""
        return any(variant.throttles for variant in self.variants)

    @property
    def idle_s(self) -> float | None:
        """How long nobody must have asked before the endpoint may sleep; None where it never may."""
        scalings = [variant.scaling for variant in (*self.variants, *self.shadows)]
        if any(scaling is None or scaling.min_count > 0 for scaling in scalings):
            return None
        return max(scaling.idle_s for scaling in scalings if scaling is not None)

    @property
    def invocation_timeout_s(self) -> float:
        """The longest time that any variant may take to answer."""
        return max(variant.scoring.invocation_timeout_s for variant in self.variants)
