"""The event stream, read back by botocore's own decoder and parser."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.eventstream import EventStream
from botocore.exceptions import EventStreamError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import EventStreamJSONParser

from raymaker.serving import event_stream

MODEL = ServiceModel(Loader().load_service_model("sagemaker-runtime", "service-2"), "sagemaker-runtime")
STREAM = MODEL.operation_model("InvokeEndpointWithResponseStream").output_shape.members["Body"]


class Raw:
    """What botocore reads from: bytes, cut at places that have nothing to do with events."""

    def __init__(self, *events: bytes) -> None:
        self._bytes = b"".join(events)

    def stream(self) -> Any:
        return (self._bytes[start : start + 7] for start in range(0, len(self._bytes), 7))


def read(*events: bytes) -> EventStream:
    return EventStream(Raw(*events), STREAM, EventStreamJSONParser(), "InvokeEndpointWithResponseStream")


def test_pieces_of_any_bytes_come_back_in_order() -> None:
    pieces = [b"one", bytes(range(256)) * 300, b""]
    events = read(*(event_stream.payload_part(piece) for piece in pieces))
    assert [event["PayloadPart"]["Bytes"] for event in events] == pieces


@pytest.mark.parametrize("kind", [event_stream.MODEL_STREAM_ERROR, event_stream.INTERNAL_STREAM_FAILURE])
def test_a_failure_ends_the_stream_as_botocores_exception_with_its_words(kind: str) -> None:
    events = iter(
        read(event_stream.payload_part(b"one"), event_stream.failure(kind, "it broke off — alas", "StreamBroken"))
    )
    assert next(events)["PayloadPart"]["Bytes"] == b"one"
    with pytest.raises(EventStreamError, match="it broke off — alas") as caught:
        next(events)
    assert caught.value.response["Error"]["Code"] == kind
