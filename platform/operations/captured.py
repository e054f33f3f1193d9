"""GetCapturedRecords: what an endpoint was asked and answered, from where its data capture keeps it."""

from __future__ import annotations

import dataclasses
from typing import Any

from raymaker.actors.storage import ObjectStore
from raymaker.platform.cluster.site import site_of
from raymaker.platform.database import hosting
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.naming import ENDPOINT, as_time, epoch_s, not_found
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.serving.captured import BadToken, CapturedQuery, CapturedRecord, Payload, read_captured

DEFAULT_PAGE_COUNT = 100
STORE_RETRY_S = 5.0
"""How long a request waits for an object store that is away."""


@operation("GetCapturedRecords")
def get_captured_records(context: Context, request: Request) -> Answer:
    """Tell what was captured of an endpoint, a page at a time."""
    query = CapturedQuery(
        endpoint_name=request["EndpointName"],
        since=epoch_s(request.get("StartTime")),
        until=epoch_s(request.get("EndTime")),
        variant=request.get("VariantName"),
        inference_id=request.get("InferenceId"),
    )
    destination_uri = _find_destination(context, query.endpoint_name)
    store = ObjectStore(dataclasses.replace(site_of(context.settings).store, retry_s=STORE_RETRY_S))
    limit_count, token = request.get("MaxResults", DEFAULT_PAGE_COUNT), request.get("NextToken")
    try:
        records, token = read_captured(store, destination_uri, query, limit_count, token)
    except BadToken:
        raise ValidationException("NextToken is none that GetCapturedRecords gave; begin without one") from None
    return {"Records": [_describe(record) for record in records], "NextToken": token}


def _find_destination(context: Context, endpoint_name: str) -> str:
    """Find where an endpoint's data is captured to. Raises ValidationException where it is not, or there is none."""
    with context.database.reading() as connection:
        endpoint = hosting.find_endpoint(connection, endpoint_name)
    if endpoint is None:
        raise not_found(context, ENDPOINT, endpoint_name)
    config = (endpoint.deployed or endpoint.desired).data_capture
    if config is None:
        raise ValidationException(
            f"endpoint {endpoint_name} captures nothing: update it to a configuration with a DataCaptureConfig"
        )
    return str(config["DestinationS3Uri"])


def _describe(record: CapturedRecord) -> dict[str, Any]:
    return {
        "EventId": record.event_id,
        "InferenceTime": as_time(record.time),
        "VariantName": record.variant,
        "InferenceId": record.inference_id,
        "CustomAttributes": record.custom_attributes,
        "Input": _describe_payload(record.asked),
        "Output": _describe_payload(record.answered),
    }


def _describe_payload(payload: Payload | None) -> dict[str, Any] | None:
    return None if payload is None else {"Data": payload.data, "ContentType": payload.content_type}
