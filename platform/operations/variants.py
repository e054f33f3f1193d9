"""The variants of an endpoint as the API tells of them and lets them be changed: weights and instance counts. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting.scaling_specs import is_load_scaled
from raymaker.platform.operations.endpoint_configs import check_weights
from raymaker.platform.operations.scaling_checks import check_desired_count
from raymaker.platform.records import Deployment, EndpointRecord, EndpointStatus, ResolvedVariant

_FIELDS = {"DesiredWeight": "weight", "DesiredInstanceCount": "instance_count"}


def describe_fleets(record: EndpointRecord) -> dict[str, Any]:
    """Tell of the variants that answer. Of the same variants other weights and counts may be desired."""
    deployed, desired = record.deployed or record.desired, record.desired
    wanted = desired if desired.revision == deployed.revision else deployed
    production = zip(deployed.variants, wanted.variants, strict=True)
    shadow = zip(deployed.shadows, wanted.shadows, strict=True)
    return _by_kind(
        [_describe(current, after, record) for current, after in production],
        [_describe(current, after, record) for current, after in shadow],
    )


def describe_pending(desired: Deployment, progress: list[dict[str, Any]]) -> dict[str, Any]:
    """Tell of variants that are coming up, and how far they are."""
    shown = {"VariantStatus": progress} if progress else {}
    fleets = (desired.variants, desired.shadows)
    return _by_kind(*([_describe(each, each, None) | shown for each in fleet] for fleet in fleets))


def read_changes(desired: Deployment, request: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Read DesiredWeightsAndCapacities as fields of variants. Raises ValidationException, naming what cannot be."""
    variants = {variant.name: variant for variant in desired.variants}
    changes: dict[str, dict[str, Any]] = {}
    for number, asked in enumerate(request):
        path, name = f"DesiredWeightsAndCapacities[{number}]", asked["VariantName"]
        if name not in variants:
            raise ValidationException(f"{path}.VariantName: there is no variant {name}, only {', '.join(variants)}")
        if name in changes:
            raise ValidationException(f"{path}.VariantName {name} comes twice: ask for it once")
        if "ServerlessUpdateConfig" in asked:
            raise ValidationException(
                f"{path}.ServerlessUpdateConfig is not supported here: update to a configuration that has it"
            )
        if "DesiredInstanceCount" in asked:
            check_desired_count(variants[name].request, asked["DesiredInstanceCount"], path)
        changes[name] = {field: asked[key] for key, field in _FIELDS.items() if key in asked}
    check_weights(changes.get(name, {}).get("weight", variant.weight) for name, variant in variants.items())
    return changes


def retain_properties(desired: Deployment, running: Deployment | None, excluded: Collection[str]) -> Deployment:
    """Give variants that run already under the same name the weights and counts that they have, unless excluded.

    What is captured is retained too.
    """
    if running is None:
        return desired
    before = {variant.name: variant for variant in running.variants}
    data_capture = desired.data_capture if "DataCaptureConfig" in excluded else running.data_capture

    def retain(variant: ResolvedVariant) -> ResolvedVariant:
        if variant.name not in before:
            return variant
        kept = {field: getattr(before[variant.name], field) for key, field in _FIELDS.items() if key not in excluded}
        return dataclasses.replace(variant, **kept)

    return dataclasses.replace(desired, variants=tuple(map(retain, desired.variants)), data_capture=data_capture)


def _by_kind(production: list[dict[str, Any]], shadow: list[dict[str, Any]]) -> dict[str, Any]:
    return {"ProductionVariants": production, **({"ShadowProductionVariants": shadow} if shadow else {})}


def _describe(current: ResolvedVariant, desired: ResolvedVariant, record: EndpointRecord | None) -> dict[str, Any]:
    serverless = current.request.get("ServerlessConfig")
    return {
        "VariantName": current.name,
        "DeployedImages": [{"SpecifiedImage": container.image} for container in current.containers if container.image],
        "CurrentWeight": current.weight,
        "DesiredWeight": desired.weight,
        "CurrentInstanceCount": record.running_counts.get(current.name, 0) if record is not None else 0,
        "DesiredInstanceCount": _wanted_count(desired, record),
        "ManagedInstanceScaling": current.request.get("ManagedInstanceScaling"),
        "CurrentServerlessConfig": serverless,
        "DesiredServerlessConfig": serverless,
    }


def _wanted_count(desired: ResolvedVariant, record: EndpointRecord | None) -> int:
    """How many instances a variant shall have: what its load asks for, where it is scaled and answers."""
    if record is not None and record.status is EndpointStatus.IN_SERVICE and is_load_scaled(desired.request):
        return record.wanted_counts.get(desired.name, 0)
    return desired.instance_count
