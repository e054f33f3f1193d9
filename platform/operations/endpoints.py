"""Endpoints: create, describe, list, update, delete. All but the record is done by `reconcile`, which is woken.

How variants are described and changed stands in `variants.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection

from raymaker.platform import transitions
from raymaker.platform.database import hosting
from raymaker.platform.database.activity import activities
from raymaker.platform.database.tags import put_tags
from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting.hosting_specs import is_capturing
from raymaker.platform.operations.checkpoints import Pins, pin_models, pinned
from raymaker.platform.operations.checks import read_listing, read_tags
from raymaker.platform.operations.endpoint_configs import find_endpoint_config
from raymaker.platform.operations.models import find_called, find_model, find_origins
from raymaker.platform.operations.naming import ENDPOINT, already_exists, as_time, make_arn, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.operations.rollout_checks import check_deployment_config, describe_progress, is_pending
from raymaker.platform.operations.signals import describe_load, describe_variant
from raymaker.platform.operations.variants import (
    describe_fleets,
    describe_pending,
    read_changes,
    retain_properties,
)
from raymaker.platform.phases import IllegalMove
from raymaker.platform.records import (
    Deployment,
    EndpointConfigRecord,
    EndpointRecord,
    EndpointStatus,
    ResolvedVariant,
)
from raymaker.platform.specs import resolve_variant


@operation("CreateEndpoint")
def create_endpoint(context: Context, request: Request) -> Answer:
    """Accept an endpoint: durable when this answers; DescribeEndpoint tells when it serves."""
    tags, pins = read_tags(request), pin_models(context, request["EndpointConfigName"])
    with context.database.transaction() as connection:
        config = find_endpoint_config(context, connection, request["EndpointConfigName"])
        desired, policy = resolve(context, connection, config, pins), request.get("DeploymentConfig")
        check_deployment_config(policy, desired)
        record = insert_endpoint(context, connection, request["EndpointName"], desired, policy)
        put_tags(connection, record.arn, tags)
    context.cluster.wake()
    return {"EndpointArn": record.arn}


@operation("DescribeEndpoint")
def describe_endpoint(context: Context, request: Request) -> Answer:
    """Tell everything about an endpoint; the deployed configuration while an update is under way."""
    with context.database.reading() as connection:
        record = hosting.find_endpoint(connection, request["EndpointName"])
        told, now = activities(connection, request["EndpointName"]), context.now()
    if record is None:
        raise not_found(context, ENDPOINT, request["EndpointName"])
    deployed = record.deployed or record.desired
    answer = _summarise(record) | {
        "EndpointConfigName": deployed.config_name,
        **describe_fleets(record),
        **describe_load(told, now),
        "FailureReason": record.failure_reason,
        "DataCaptureConfig": _describe_capture(deployed),
        "AsyncInferenceConfig": deployed.async_inference,
        "LastDeploymentConfig": record.deployment_config,
    }
    for variant in (*answer["ProductionVariants"], *answer.get("ShadowProductionVariants", [])):
        variant.update(describe_variant(variant["VariantName"], told, now))
    if is_pending(record, deployed):
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": record.desired.config_name,
            **describe_pending(record.desired, describe_progress(record)),
            "StartTime": as_time(record.rollout.began_at if record.rollout is not None else record.modified_at),
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
    pins = pin_models(context, request["EndpointConfigName"])
    with context.database.transaction() as connection:
        config = find_endpoint_config(context, connection, request["EndpointConfigName"])
        desired = resolve(context, connection, config, pins)
        running = hosting.find_endpoint(connection, request["EndpointName"], lock=True)
        if request.get("RetainAllVariantProperties"):
            desired = retain_properties(desired, running.deployed if running else None, _excluded(request))
        policy = _read_policy(request, running)
        check_deployment_config(policy, desired)
        record = move_to(context, connection, request["EndpointName"], desired, policy)
    context.cluster.wake()
    return {"EndpointArn": record.arn}


@operation("UpdateEndpointWeightsAndCapacities")
def update_weights_and_capacities(context: Context, request: Request) -> Answer:
    """Accept other weights and instance counts for variants that are there. Nothing that runs is made anew."""
    name, now = request["EndpointName"], context.now()
    with context.database.transaction() as connection:
        endpoint = hosting.find_endpoint(connection, name, lock=True)
        if endpoint is None:
            raise not_found(context, ENDPOINT, name)
        changes = read_changes(endpoint.desired, request["DesiredWeightsAndCapacities"])
        record = _move(context, connection, name, lambda record: transitions.change_weights(record, changes, now))
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


def resolve(
    context: Context, connection: Connection, config: EndpointConfigRecord, pins: Pins = MappingProxyType({})
) -> Deployment:
    """Settle what a configuration runs. Raises ValidationException where a model is gone or not to be had."""

    def resolve_one(variant: Request) -> ResolvedVariant:
        model = pinned(find_model(context, connection, variant["ModelName"]), pins)
        called = [pinned(each, pins) for each in find_called(context, connection, model.request)]
        return resolve_variant(variant, [(each, find_origins(connection, each.request)) for each in (model, *called)])

    return Deployment(
        config_name=config.name,
        variants=tuple(map(resolve_one, config.request["ProductionVariants"])),
        shadows=tuple(map(resolve_one, config.request.get("ShadowProductionVariants", []))),
        data_capture=config.request.get("DataCaptureConfig"),
        async_inference=config.request.get("AsyncInferenceConfig"),
    )


def insert_endpoint(
    context: Context, connection: Connection, name: str, desired: Deployment, policy: Mapping[str, Any] | None = None
) -> EndpointRecord:
    """Write a new endpoint. Raises ValidationException where the name is taken."""
    arn, now = make_arn(context, ENDPOINT, name), context.now()
    record = transitions.create_endpoint(name, arn, context.account, desired, now, deployment_config=policy)
    if not hosting.insert_endpoint(connection, record):
        raise already_exists(context, ENDPOINT, name)
    return record


def move_to(
    context: Context, connection: Connection, name: str, desired: Deployment, policy: Mapping[str, Any] | None = None
) -> EndpointRecord:
    """Ask an endpoint for another deployment. Raises ValidationException where it is busy or not there."""
    now = context.now()
    return _move(context, connection, name, lambda record: transitions.update_endpoint(record, desired, now, policy))


def _move(context: Context, connection: Connection, name: str, move: hosting.Move) -> EndpointRecord:
    try:
        return hosting.move_endpoint(connection, name, move)
    except hosting.EndpointMissing:
        raise not_found(context, ENDPOINT, name) from None
    except IllegalMove as error:
        arn = make_arn(context, ENDPOINT, name)
        raise ValidationException(f'Cannot update in-progress endpoint "{arn}": {error}. Wait for its end') from error


def _read_policy(request: Request, running: EndpointRecord | None) -> Mapping[str, Any] | None:
    """How the new deployment is to take over: as is asked for, or as the last one did."""
    asked: Mapping[str, Any] | None = request.get("DeploymentConfig")
    if not request.get("RetainDeploymentConfig"):
        return asked
    if asked is not None:
        raise ValidationException("RetainDeploymentConfig does not go with a DeploymentConfig: leave one of them out")
    return running.deployment_config if running is not None else None


def _excluded(request: Request) -> set[str]:
    """What of the variants is not to be retained."""
    return {excluded["VariantPropertyType"] for excluded in request.get("ExcludeRetainedVariantProperties", [])}


def _describe_capture(deployment: Deployment) -> dict[str, Any] | None:
    config = deployment.data_capture
    if config is None:
        return None
    return {
        "EnableCapture": is_capturing(config),
        "CaptureStatus": "Started" if is_capturing(config) else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": "",
    }


def _summarise(record: EndpointRecord) -> dict[str, Any]:
    return {
        "EndpointName": record.name,
        "EndpointArn": record.arn,
        "CreationTime": as_time(record.created_at),
        "LastModifiedTime": as_time(record.modified_at),
        "EndpointStatus": record.status,
        "Sleep": record.sleep if record.status is EndpointStatus.IN_SERVICE else None,
    }
