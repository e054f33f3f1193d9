"""What is checked of how variants are scaled: bounds that make sense, and machines that could hold an instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.platform.capacity import describe
from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting.scaling_specs import bounds, initial_count, instance_type_of, is_scaled
from raymaker.platform.operations.checks import room_for
from raymaker.platform.operations.registry import Context, Request

_MEMORY_STEP_MB = 1024


def check_scaling(context: Context, variant: Request, path: str) -> None:
    """Raise ValidationException, naming the field and the remedy, for what cannot be scaled as it was asked."""
    if "ServerlessConfig" in variant:
        _check_serverless(context, variant, path)
    elif is_scaled(variant):
        _check_managed(variant, f"{path}.ManagedInstanceScaling")


def check_desired_count(variant: Mapping[str, Any], count: int, path: str) -> None:
    """Raise ValidationException where a variant may not have so many instances."""
    if "ServerlessConfig" in variant:
        return
    if count < 1:
        raise ValidationException(f"{path}.DesiredInstanceCount is 0: a variant has at least 1 instance")
    least, most = bounds(variant) if is_scaled(variant) else (1, count)
    if not least <= count <= most:
        name = variant["VariantName"]
        raise ValidationException(f"{path}.DesiredInstanceCount is {count}: variant {name} has {least} to {most}")


def _check_managed(variant: Request, path: str) -> None:
    scaling, (least, most), first = variant["ManagedInstanceScaling"], bounds(variant), initial_count(variant)
    if "ScaleInPolicy" in scaling:
        raise ValidationException(f"{path}.ScaleInPolicy is not supported here: give ScaleInDelayInSeconds")
    if not least <= first <= most:
        raise ValidationException(
            f"{path}: MinInstanceCount {least}, InitialInstanceCount {first} and MaxInstanceCount {most} are not in "
            "order: give Min <= Initial <= Max"
        )
    if "IdleTimeInSeconds" in scaling and least > 0:
        raise ValidationException(
            f"{path}.IdleTimeInSeconds needs a MinInstanceCount of 0: there is always an instance"
        )


def _check_serverless(context: Context, variant: Request, path: str) -> None:
    for field in ("InstanceType", "InitialInstanceCount", "ManagedInstanceScaling"):
        if field in variant:
            raise ValidationException(f"{path}.{field} does not go with ServerlessConfig: leave one of them out")
    serverless, path = variant["ServerlessConfig"], f"{path}.ServerlessConfig"
    if serverless["MemorySizeInMB"] % _MEMORY_STEP_MB:
        raise ValidationException(f"{path}.MemorySizeInMB {serverless['MemorySizeInMB']}: give a multiple of 1024")
    provisioned = serverless.get("ProvisionedConcurrency", 0)
    if provisioned > serverless["MaxConcurrency"]:
        raise ValidationException(
            f"{path}.ProvisionedConcurrency {provisioned} is above MaxConcurrency {serverless['MaxConcurrency']}"
        )
    if provisioned and "IdleTimeInSeconds" in serverless:
        raise ValidationException(f"{path}.IdleTimeInSeconds does not go with ProvisionedConcurrency: leave it out")
    instance_type = instance_type_of(variant)
    if instance_type is not None and not room_for(context, instance_type.resources):
        raise ValidationException(
            f"{path}.MemorySizeInMB: no machine of this cluster can hold {describe(instance_type.resources)}"
        )
