"""What was captured of an endpoint's requests and answers, as values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from raymaker.platform.client.connection import Answer, Connection
from raymaker.platform.client.names import given
from raymaker.platform.client.payload import Answer as Payload


@dataclass(frozen=True)
class Captured:
    """One captured request with its answer; a side that is not captured is None."""

    event_id: str
    time: datetime
    variant: str
    inference_id: str | None
    custom_attributes: str | None
    asked: Payload | None
    answered: Payload | None


def list_captured(
    connection: Connection,
    endpoint_name: str,
    *,
    since: datetime | None,
    until: datetime | None,
    variant: str | None,
    inference_id: str | None,
) -> Iterator[Captured]:
    """Yield what was captured, in the order of writing. Raises RequestRefused where nothing is captured."""
    asked = given(StartTime=since, EndTime=until, VariantName=variant, InferenceId=inference_id)
    for record in connection.items("get_captured_records", "Records", EndpointName=endpoint_name, **asked):
        yield Captured(
            event_id=record["EventId"],
            time=record["InferenceTime"],
            variant=record["VariantName"],
            inference_id=record.get("InferenceId"),
            custom_attributes=record.get("CustomAttributes"),
            asked=_payload(record.get("Input")),
            answered=_payload(record.get("Output")),
        )


def _payload(side: Answer | None) -> Payload | None:
    return None if side is None else Payload(side["Data"], side["ContentType"])
