"""Endpoint configurations: create, describe, list, delete. One production variant for now."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from raymaker.platform.database import hosting
from raymaker.platform.database.tags import put_tags
from raymaker.platform.errors import ValidationException
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
from raymaker.platform.records import EndpointConfigRecord

_LATER = "it is not supported yet; leave it out"
_NO_KEYS = "disks are not encrypted with keys of a key service; leave it out"
_HONOURED_NOWHERE = {
    "ShadowProductionVariants": _LATER,
    "AsyncInferenceConfig": _LATER,
    "ExplainerConfig": "there is no explainer; leave it out",
    "CrossRegionTrafficConfig": "there is one region; leave it out",
    "KmsKeyId": _NO_KEYS,
    "ProductionVariants.ServerlessConfig": "give InstanceType and InitialInstanceCount",
    "ProductionVariants.InstancePools": "give InstanceType and InitialInstanceCount",
    "ProductionVariants.AcceleratorType": "choose an InstanceType with GPUs",
    "ProductionVariants.AcceleratorPartitionLayouts": "choose an InstanceType with GPUs",
    "ProductionVariants.CoreDumpConfig": _LATER,
    "ProductionVariants.CapacityReservationConfig": "there are no reservations; leave it out",
    "ProductionVariants.EnableSSMAccess": "there is no session manager; leave it out",
    "ProductionVariants.RoutingConfig.PrefixAwareRoutingConfig": _LATER,
}


@operation("CreateEndpointConfig")
def create_endpoint_config(context: Context, request: Request) -> Answer:
    """Accept a configuration whose model exists and whose instances the cluster can hold."""
    _check(context, request)
    tags = read_tags(request)
    record = new_endpoint_config(context, request["EndpointConfigName"], without_tags(request))
    with context.database.transaction() as connection:
        find_model(context, connection, request["ProductionVariants"][0]["ModelName"])
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
    if request.get("DataCaptureConfig", {}).get("EnableCapture", "DataCaptureConfig" in request):
        raise ValidationException(
            "DataCaptureConfig is not supported here: requests are not captured yet; leave it out"
        )
    if len(request["ProductionVariants"]) > 1:
        raise ValidationException("ProductionVariants: several variants are not supported yet; give one")
    variant = request["ProductionVariants"][0]
    for field in ("ModelName", "InstanceType"):
        if not variant.get(field):
            raise ValidationException(f"ProductionVariants[0].{field} is missing")
    if variant.get("ManagedInstanceScaling", {}).get("Status") == "ENABLED":
        raise ValidationException(f"ProductionVariants[0].ManagedInstanceScaling is not supported here: {_LATER}")
    strategy = variant.get("RoutingConfig", {}).get("RoutingStrategy", "RANDOM")
    if strategy not in {"RANDOM", "LEAST_OUTSTANDING_REQUESTS"}:
        raise ValidationException(f"ProductionVariants[0].RoutingConfig.RoutingStrategy {strategy}: {_LATER}")
    find_instance_type(context, variant["InstanceType"], "ProductionVariants[0].InstanceType")


def _summarise(record: EndpointConfigRecord) -> dict[str, Any]:
    return {
        "EndpointConfigName": record.name,
        "EndpointConfigArn": record.arn,
        "CreationTime": as_time(record.created_at),
    }
