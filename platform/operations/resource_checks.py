"""What CreateTrainingJob checks of ResourceConfig: counts that make sense, and nodes that could hold the instances.

Pure but for the cluster's word on instance types and nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.actors.spec import InstanceType
from raymaker.platform.capacity import describe, describe_nodes
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.checks import find_instance_type, room_for
from raymaker.platform.operations.registry import Context
from raymaker.platform.specs import instance_counts

MOST_CONTAINERS = 1024
"""The most containers that one job may have on all its instances together."""
LEAST_CPUS, LEAST_MEMORY_BYTES = 0.01, 6 * 1024 * 1024
"""What an engine gives to a container at least."""


def check_resources(context: Context, resources: Mapping[str, Any]) -> None:
    """Raise ValidationException for counts that make no sense, and for more than the cluster could ever hold."""
    if "InstanceType" not in resources:
        raise ValidationException("ResourceConfig.InstanceType is missing: give an instance type, e.g. ml.m5.large")
    _check_counts(resources)
    instance_type = find_instance_type(context, resources["InstanceType"], "ResourceConfig.InstanceType")
    _check_shares(instance_type, resources.get("ContainersPerInstance", 1))
    _check_room(context, instance_type, resources)


def _check_counts(resources: Mapping[str, Any]) -> None:
    least, most = instance_counts(resources)
    count = resources.get("InstanceCount", most)
    if count < 1:
        raise ValidationException(f"ResourceConfig.InstanceCount {count} is too few: a job needs at least 1 instance")
    if not least <= count <= most:
        raise ValidationException(
            f"ResourceConfig: MinInstanceCount {least}, InstanceCount {count} and MaxInstanceCount {most} are not in "
            "order: give Min <= Count <= Max, or leave Min and Max out for a job of fixed size"
        )
    per_instance = resources.get("ContainersPerInstance", 1)
    if most * per_instance > MOST_CONTAINERS:
        field = "MaxInstanceCount" if "MaxInstanceCount" in resources else "InstanceCount"
        raise ValidationException(
            f"ResourceConfig.{field} {most} with ContainersPerInstance {per_instance} makes {most * per_instance} "
            f"containers: a job has at most {MOST_CONTAINERS}"
        )


def _check_shares(instance_type: InstanceType, per_instance: int) -> None:
    """See that an engine could start a container with its share of an instance."""
    whole = instance_type.resources
    if whole.cpus / per_instance < LEAST_CPUS or 0 < whole.memory_bytes // per_instance < LEAST_MEMORY_BYTES:
        raise ValidationException(
            f"ResourceConfig.ContainersPerInstance {per_instance} is too many for {instance_type.name}, which has "
            f"{describe(whole)} for all of them: give fewer, or choose a larger instance type"
        )


def _check_room(context: Context, instance_type: InstanceType, resources: Mapping[str, Any]) -> None:
    """See that the nodes could hold the fewest instances that the job runs on, if nothing else ran there."""
    needed_count, _ = instance_counts(resources)
    room_count = room_for(context, instance_type.resources)
    if room_count < needed_count:
        nodes = describe_nodes(context.cluster.nodes())
        field = "MinInstanceCount" if "MinInstanceCount" in resources else "InstanceCount"
        raise ValidationException(
            f"ResourceConfig.{field} {needed_count}: this cluster can never hold so many instances of "
            f"{instance_type.name} at once. Each needs {describe(instance_type.resources)}, and there is room for "
            f"{room_count} in all: {nodes}. Ask for fewer, choose a smaller instance type or add nodes"
        )
