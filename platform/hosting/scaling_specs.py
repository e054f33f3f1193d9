"""What variants ask for in instances: how many, scaled between which bounds, and what a serverless one is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymaker.actors.spec import InstanceType, Resources
from raymaker.platform.settings import Settings
from raymaker.serving.scaling import ScalingSpec
from raymaker.serving.spec import VariantSpec

MIB = 1024**2
CPUS_PER_GIB = 1.0
"""What a serverless instance has of CPUs goes with its memory."""
SERVERLESS_TARGET = 1.0
"""How many requests a serverless instance is to work on at once: as SageMaker's, which get one each."""

Request = Mapping[str, Any]


def is_scaled(request: Request) -> bool:
    """Tell whether a variant's ManagedInstanceScaling is there and switched on."""
    return bool(request.get("ManagedInstanceScaling", {}).get("Status") == "ENABLED")


def is_load_scaled(request: Request) -> bool:
    """Tell whether the load decides how many instances a variant has."""
    return "ServerlessConfig" in request or is_scaled(request)


def initial_count(request: Request) -> int:
    """How many instances a variant begins with."""
    serverless = request.get("ServerlessConfig", {})
    return int(request.get("InitialInstanceCount", serverless.get("ProvisionedConcurrency", 1)))


def bounds(request: Request) -> tuple[int, int]:
    """The fewest and the most instances of a variant that is scaled; what it begins with, where it does not say."""
    scaling, first = request["ManagedInstanceScaling"], initial_count(request)
    return scaling.get("MinInstanceCount", min(1, first)), scaling.get("MaxInstanceCount", first)


def scaling_spec(request: Request, settings: Settings) -> ScalingSpec | None:
    """Say how a variant is scaled, None where its instances are always as many."""
    if serverless := request.get("ServerlessConfig"):
        return ScalingSpec(
            min_count=serverless.get("ProvisionedConcurrency", 0),
            max_count=serverless["MaxConcurrency"],
            target_concurrency=SERVERLESS_TARGET,
            idle_s=serverless.get("IdleTimeInSeconds", settings.idle_s),
        )
    if not is_scaled(request):
        return None
    scaling = request["ManagedInstanceScaling"]
    return _by_load(scaling, bounds(request), scaling.get("IdleTimeInSeconds", settings.idle_s))


def step_scaling_spec(asked: Request) -> ScalingSpec:
    """Say how the container is scaled that a graph's step calls. It never goes to sleep by itself."""
    least = asked.get("MinInstanceCount", 1)
    return _by_load(asked, (least, asked.get("MaxInstanceCount", least)), ScalingSpec.idle_s)


def _by_load(asked: Request, bounds: tuple[int, int], idle_s: float) -> ScalingSpec:
    least, most = bounds
    return ScalingSpec(
        min_count=least,
        max_count=most,
        target_concurrency=asked.get("TargetConcurrency", ScalingSpec.target_concurrency),
        scale_out_delay_s=asked.get("ScaleOutDelayInSeconds", ScalingSpec.scale_out_delay_s),
        scale_in_delay_s=asked.get("ScaleInDelayInSeconds", ScalingSpec.scale_in_delay_s),
        idle_s=idle_s,
    )


def instance_type_of(request: Request) -> InstanceType | None:
    """The instance that a serverless variant's memory asks for, None where its type is named."""
    if "ServerlessConfig" not in request:
        return None
    memory_mib = request["ServerlessConfig"]["MemorySizeInMB"]
    return InstanceType(f"serverless-{memory_mib}", Resources(CPUS_PER_GIB * memory_mib / 1024, memory_mib * MIB))


def most_pending(request: Request) -> int:
    """How many requests one instance of a variant takes at once."""
    return int(request.get("ServerlessConfig", {}).get("MaxConcurrency", VariantSpec.max_pending_requests))
