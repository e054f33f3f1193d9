"""Endpoints: create, describe, list, update, delete. All but the record is done by `reconcile`, which is woken."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from raymaker.platform import transitions
from raymaker.platform.database import hosting
from raymaker.platform.database.tags import put_tags
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.checks import read_listing, read_tags, refuse_fields
from raymaker.platform.operations.endpoint_configs import find_endpoint_config
from raymaker.platform.operations.models import find_model, find_origin
from raymaker.platform.operations.naming import ENDPOINT, already_exists, as_time, make_arn, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.records import Deployment, EndpointConfigRecord, EndpointRecord, EndpointStatus
from raymaker.platform.specs import model_container, resolve_deployment

_HONOURED_NOWHERE = {
    "DeploymentConfig": "a new fleet comes up beside the old one, takes over at once and is undone when it fails",
    "RetainAllVariantProperties": "the configuration's own instance count is used; leave it out",
}


@operation("CreateEndpoint")
def create_endpoint(context: Context, request: Request) -> Answer:
    """Accept an endpoint: durable when this answers; DescribeEndpoint tells when it serves."""
    refuse_fields(request, _HONOURED_NOWHERE)
    tags = read_tags(request)
    with context.database.transaction() as connection:
        config = find_endpoint_config(context, connection, request["EndpointConfigName"])
        record = insert_endpoint(context, connection, request["EndpointName"], resolve(context, connection, config))
        put_tags(connection, record.arn, tags)
    context.cluster.wake()
    return {"EndpointArn": record.arn}


@operation("DescribeEndpoint")
def describe_endpoint(context: Context, request: Request) -> Answer:
    """Tell everything about an endpoint; the deployed configuration while an update is under way."""
    with context.database.reading() as connection:
        record = hosting.find_endpoint(connection, request["EndpointName"])
    if record is None:
        raise not_found(context, ENDPOINT, request["EndpointName"])
    deployed = record.deployed or record.desired
    answer = _summarise(record) | {
        "EndpointConfigName": deployed.config_name,
        "ProductionVariants": [_describe_variant(deployed, record.running_count)],
        "FailureReason": record.failure_reason,
    }
    if record.status is EndpointStatus.UPDATING:
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": record.desired.config_name,
            "ProductionVariants": [_describe_variant(record.desired, 0)],
            "StartTime": as_time(record.modified_at),
        }
    return answer


@operation("ListEndpoints")
def list_endpoints(context: Context, request: Request) -> Answer:
    """Tell of endpoints, a page at a time."""
    with context.database.reading() as connection:
        records, token = hosting.list_endpoints(connection, read_listing(request, default_order="Descending"))
    return {"Endpoints": [_summarise(record) for record in records], "NextToken": token}


@operation("UpdateEndpoint")
def update_endpoint(context: Context, request: Request) -> Answer:
    """Accept another configuration for an endpoint, which goes on serving meanwhile."""
    refuse_fields(request, _HONOURED_NOWHERE)
    with context.database.transaction() as connection:
        config = find_endpoint_config(context, connection, request["EndpointConfigName"])
        record = move_to(context, connection, request["EndpointName"], resolve(context, connection, config))
    context.cluster.wake()
    return {"EndpointArn": record.arn}


@operation("DeleteEndpoint")
def delete_endpoint(context: Context, request: Request) -> Answer:
    """Have an endpoint taken away, whatever it is doing."""
    name, now = request["EndpointName"], context.now()
    try:
        with context.database.transaction() as connection:
            hosting.move_endpoint(connection, name, lambda record: transitions.delete_endpoint(record, now))
    except hosting.EndpointMissing:
        raise not_found(context, ENDPOINT, name) from None
    context.cluster.wake()
    return {}


def resolve(context: Context, connection: Connection, config: EndpointConfigRecord) -> Deployment:
    """Settle what a configuration runs. Raises ValidationException where its model is gone or not to be had."""
    variant = config.request["ProductionVariants"][0]
    model = find_model(context, connection, variant["ModelName"])
    return resolve_deployment(config.name, variant, model, find_origin(connection, model_container(model.request)))


def insert_endpoint(context: Context, connection: Connection, name: str, desired: Deployment) -> EndpointRecord:
    """Write a new endpoint. Raises ValidationException where the name is taken."""
    arn = make_arn(context, ENDPOINT, name)
    record = transitions.create_endpoint(name, arn, context.account, desired, context.now())
    if not hosting.insert_endpoint(connection, record):
        raise already_exists(context, ENDPOINT, name)
    return record


def move_to(context: Context, connection: Connection, name: str, desired: Deployment) -> EndpointRecord:
    """Ask an endpoint for another deployment. Raises ValidationException where it is busy or not there."""
    now = context.now()
    try:
        return hosting.move_endpoint(connection, name, lambda record: transitions.update_endpoint(record, desired, now))
    except hosting.EndpointMissing:
        raise not_found(context, ENDPOINT, name) from None
    except transitions.IllegalMove as error:
        arn = make_arn(context, ENDPOINT, name)
        raise ValidationException(f'Cannot update in-progress endpoint "{arn}": {error}. Wait for its end') from error


def _describe_variant(deployment: Deployment, running_count: int) -> dict[str, Any]:
    variant = deployment.variant
    weight = variant.get("InitialVariantWeight", 1.0)
    return {
        "VariantName": variant["VariantName"],
        "DeployedImages": [{"SpecifiedImage": deployment.image}] if deployment.image else [],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        "CurrentInstanceCount": running_count,
        "DesiredInstanceCount": variant.get("InitialInstanceCount", 1),
    }


def _summarise(record: EndpointRecord) -> dict[str, Any]:
    return {
        "EndpointName": record.name,
        "EndpointArn": record.arn,
        "CreationTime": as_time(record.created_at),
        "LastModifiedTime": as_time(record.modified_at),
        "EndpointStatus": record.status,
    }
