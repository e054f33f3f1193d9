"""Endpoint configurations: create, describe, list, delete. Variants and shadows are checked when they are named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection

from raymaker.platform.database import hosting
from raymaker.platform.database.tags import put_tags
from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting.hosting_specs import is_capturing
from raymaker.platform.operations.checks import (
    find_instance_type,
    read_listing,
    read_tags,
    refuse_fields,
    without_tags,
)
from raymaker.platform.operations.models import find_model
from raymaker.platform.operations.naming import ENDPOINT_CONFIG, already_exists, as_time, make_arn, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.operations.scaling_checks import check_scaling
from raymaker.platform.records import EndpointConfigRecord
from raymaker.serving.notices import is_webhook

_LATER = "it is not supported yet; leave it out"
_NO_KEYS = "disks are not encrypted with keys of a key service; leave it out"
_HONOURED_NOWHERE = {
    "AsyncInferenceConfig.OutputConfig.KmsKeyId": _NO_KEYS,
    "AsyncInferenceConfig.OutputConfig.NotificationConfig.IncludeInferenceResponseIn": "notices name where the answer "
    "lies; leave it out",
    "ExplainerConfig": "there is no explainer; leave it out",
    "CrossRegionTrafficConfig": "there is one region; leave it out",
    "KmsKeyId": _NO_KEYS,
    "DataCaptureConfig.KmsKeyId": _NO_KEYS,
}
_HONOURED_BY_NO_VARIANT = {
    "InstancePools": "give InstanceType and InitialInstanceCount",
    "AcceleratorType": "choose an InstanceType with GPUs",
    "AcceleratorPartitionLayouts": "choose an InstanceType with GPUs",
    "CoreDumpConfig": _LATER,
    "CapacityReservationConfig": "there are no reservations; leave it out",
    "EnableSSMAccess": "there is no session manager; leave it out",
    "RoutingConfig.PrefixAwareRoutingConfig": _LATER,
}
_FLEETS = ("ProductionVariants", "ShadowProductionVariants")


@operation("CreateEndpointConfig")
def create_endpoint_config(context: Context, request: Request) -> Answer:
    """Accept a configuration whose model exists and whose instances the cluster can hold."""
    _check(context, request)
    tags = read_tags(request)
    record = new_endpoint_config(context, request["EndpointConfigName"], without_tags(request))
    with context.database.transaction() as connection:
        for _, variant in _variants(request):
            find_model(context, connection, variant["ModelName"])
        if not hosting.insert_endpoint_config(connection, record):
            raise already_exists(context, ENDPOINT_CONFIG, record.name)
        put_tags(connection, record.arn, tags)
    return {"EndpointConfigArn": record.arn}


@operation("DescribeEndpointConfig")
def describe_endpoint_config(context: Context, request: Request) -> Answer:
    """Tell what a configuration was created with."""
    with context.database.reading() as connection:
        record = find_endpoint_config(context, connection, request["EndpointConfigName"])
    return {**record.request, **_summarise(record)}


@operation("ListEndpointConfigs")
def list_endpoint_configs(context: Context, request: Request) -> Answer:
    """Tell of configurations, a page at a time."""
    with context.database.reading() as connection:
        records, token = hosting.list_endpoint_configs(connection, read_listing(request, default_order="Descending"))
    return {"EndpointConfigs": [_summarise(record) for record in records], "NextToken": token}


@operation("DeleteEndpointConfig")
def delete_endpoint_config(context: Context, request: Request) -> Answer:
    """Forget a configuration. Endpoints that were made with it go on."""
    with context.database.transaction() as connection:
        hosting.delete_endpoint_config(
            connection, find_endpoint_config(context, connection, request["EndpointConfigName"])
        )
    return {}


def new_endpoint_config(context: Context, name: str, request: Request) -> EndpointConfigRecord:
    """Make the record of a configuration that is accepted now."""
    arn = make_arn(context, ENDPOINT_CONFIG, name)
    return EndpointConfigRecord(name, arn, context.account, request, context.now())


def find_endpoint_config(context: Context, connection: Connection, name: str) -> EndpointConfigRecord:
    """Read a configuration. Raises ValidationException where there is none."""
    record = hosting.find_endpoint_config(connection, name)
    if record is None:
        raise not_found(context, ENDPOINT_CONFIG, name)
    return record


def _check(context: Context, request: Request) -> None:
    """Raise ValidationException, naming the field and the remedy, for what cannot be served as it was asked."""
    refuse_fields(request, _HONOURED_NOWHERE)
    _check_capture(request)
    _check_async(request)
    names: set[str] = set()
    for path, variant in _variants(request):
        _check_variant(context, variant, path)
        if variant["VariantName"] in names:
            raise ValidationException(f"{path}.VariantName {variant['VariantName']} comes twice: give each its own")
        names.add(variant["VariantName"])
    check_weights(variant.get("InitialVariantWeight", 1.0) for variant in request["ProductionVariants"])


def check_weights(weights: Iterable[float]) -> None:
    """Raise ValidationException where no variant would take traffic."""
    if not any(weights):
        raise ValidationException("All weights are 0: give at least one production variant a weight above 0")


def _variants(request: Request) -> Iterator[tuple[str, Request]]:
    """Each variant and shadow with its path."""
    for fleet in _FLEETS:
        for number, variant in enumerate(request.get(fleet, [])):
            yield f"{fleet}[{number}]", variant


def _check_variant(context: Context, variant: Request, path: str) -> None:
    refuse_fields({path: variant}, {f"{path}.{field}": reason for field, reason in _HONOURED_BY_NO_VARIANT.items()})
    for field in ("ModelName",) if "ServerlessConfig" in variant else ("ModelName", "InstanceType"):
        if not variant.get(field):
            raise ValidationException(f"{path}.{field} is missing")
    check_scaling(context, variant, path)
    strategy = variant.get("RoutingConfig", {}).get("RoutingStrategy", "RANDOM")
    if strategy not in {"RANDOM", "LEAST_OUTSTANDING_REQUESTS"}:
        raise ValidationException(f"{path}.RoutingConfig.RoutingStrategy {strategy}: {_LATER}")
    if "ServerlessConfig" not in variant:
        find_instance_type(context, variant["InstanceType"], f"{path}.InstanceType")


def _check_capture(request: Request) -> None:
    config = request.get("DataCaptureConfig")
    if is_capturing(config) and not config["DestinationS3Uri"]:
        raise ValidationException("DataCaptureConfig.DestinationS3Uri is empty: give the URI of a folder")


def _check_async(request: Request) -> None:
    config = request.get("AsyncInferenceConfig")
    if config is None:
        return
    path = "AsyncInferenceConfig.OutputConfig"
    if not config["OutputConfig"].get("S3OutputPath"):
        raise ValidationException(f"{path}.S3OutputPath is missing: there is no default place; give a URI")
    for field, topic in config["OutputConfig"].get("NotificationConfig", {}).items():
        if not is_webhook(topic):
            raise ValidationException(
                f"{path}.NotificationConfig.{field} {topic} is not supported here: give the URL of a webhook, http(s)://…"
            )


def _summarise(record: EndpointConfigRecord) -> dict[str, Any]:
    return {
        "EndpointConfigName": record.name,
        "EndpointConfigArn": record.arn,
        "CreationTime": as_time(record.created_at),
    }
