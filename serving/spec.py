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
    endpoint_arn: str = ""
    """Names region and account, from which the ARN of the log stream is made that a ModelError carries."""
    max_pending_requests: int = 200
    """How many requests one replica takes at once; more are answered with ServiceUnavailable."""
