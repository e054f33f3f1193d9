"""What an endpoint is asked to serve, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from raymaker.actors.spec import InstanceType, ScoringSpec


@dataclass(frozen=True)
class EndpointSpec:
    """One generation of one endpoint. `generation` grows with every update; the name never changes."""

    endpoint_name: str
    config_name: str
    generation: int
    variant_name: str
    replica_count: int
    instance_type: InstanceType
    scoring: ScoringSpec
