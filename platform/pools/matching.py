"""Which jobs may have the machines that are kept after another: SageMaker's rule, and raymaker's own fields. Pure.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html, matching training jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.platform.pools.keeping import PERIOD
from raymaker.platform.records import TrainingJobRecord
from raymaker.platform.settings import Settings
from raymaker.platform.specs import instance_counts, is_isolated

_COUNTS = ("InstanceCount", "MinInstanceCount", "MaxInstanceCount")
_DEFAULTS = {"ContainersPerInstance": 1, "PlacementStrategy": "Pack"}


def match_key(record: TrainingJobRecord, settings: Settings) -> tuple[object, ...]:
    """What two jobs must have alike for the later one to get what is kept of the earlier one: the account first."""
    request = record.request
    return (
        record.account,
        request.get("RoleArn"),
        _resources(request["ResourceConfig"]),
        tuple(tuple(sorted(request.get("VpcConfig", {}).get(name, ()))) for name in ("SecurityGroupIds", "Subnets")),
        bool(request.get("EnableInterContainerTrafficEncryption", False)),
        is_isolated(request, settings),
        bool(request.get("SessionChainingConfig", {}).get("EnableSessionTagChaining", False)),
    )


def _resources(resources: Mapping[str, Any]) -> tuple[object, ...]:
    """A ResourceConfig without how long it is kept, and as what is left out would be."""
    named = {name: value for name, value in resources.items() if name not in (PERIOD, *_COUNTS)}
    return (instance_counts(resources), *sorted({**_DEFAULTS, **named}.items(), key=lambda item: item[0]))
