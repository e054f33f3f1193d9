"""Data capture: what is kept in which form, what is bounded, what is lost and told. Files are kept in a dict."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from raymaker.actors.errors import StorageError
from raymaker.serving.capture import TELL_EVERY_S, Capture
from raymaker.serving.capture_record import Exchange, document_of
from raymaker.serving.spec import PARQUET, CaptureSpec
from support import scoring

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z
SPEC = CaptureSpec("s3://bucket/kept", csv_types=frozenset({"text/csv"}), json_types=frozenset({"application/json"}))


def exchange(time: float = NOON, variant: str = "blue", **facts: Any) -> Exchange:
    return scoring.exchange(time, variant, **facts)


class Place:
    """A destination that can be told to refuse, and the clock and the ear of what writes there."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.told: list[str] = []
        self.now = NOON
        self.refuses = False

    def write(self, uri: str, content: bytes) -> None:
        if self.refuses:
            raise StorageError("could not write there: access was denied")
        self.files[uri] = content

    def capture(self, spec: CaptureSpec = SPEC, **options: Any) -> Capture:
        return Capture(spec, "digits", self.write, self.told.append, now=lambda: self.now, **options)


def test_an_exchange_is_laid_out_as_sagemaker_does() -> None:
    document = document_of(exchange(inference_id="id-7", custom_attributes="trace=1"), SPEC)
    event_id = document["eventMetadata"].pop("eventId")
    assert uuid.UUID(event_id)
    assert document == {
        "captureData": {
            "endpointInput": {"observedContentType": "text/csv", "mode": "INPUT", "data": "1,2", "encoding": "CSV"},
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": "[3]",
                "encoding": "JSON",
            },
        },
        "eventMetadata": {
            "inferenceTime": "2023-11-15T12:00:00Z",
            "customAttributes": ["trace=1"],
            "inferenceId": "id-7",
        },
        "eventVersion": "0",
    }


@pytest.mark.parametrize(
    ("data", "content_type", "kept"),
    [
        (b"1,2", "text/csv; charset=utf-8", ("1,2", "CSV")),
        (b"1,2", "TEXT/CSV", ("1,2", "CSV")),
        (b"\xff", "text/csv", ("/w==", "BASE64")),
        (b"1,2", "text/plain", ("MSwy", "BASE64")),
        (b"", "", ("", "BASE64")),
    ],
)
def test_only_text_of_a_type_that_was_named_is_kept_as_text(data: bytes, content_type: str, kept: tuple) -> None:
    side = document_of(exchange(asked=data, asked_type=content_type), SPEC)["captureData"]["endpointInput"]
    assert (side["data"], side["encoding"]) == kept


def test_a_side_that_is_not_wanted_is_left_out() -> None:
    spec = CaptureSpec("s3://b", captures_input=False)
    assert list(document_of(exchange(), spec)["captureData"]) == ["endpointOutput"]


def test_files_lie_by_variant_and_hour_and_hold_a_line_for_each_exchange() -> None:
    place = Place()
    capture = place.capture()
    for item in (exchange(), exchange(NOON - 1), exchange(variant="green"), exchange(NOON + 1)):
        capture.offer(item)
    capture.flush()
    lines = {uri.rpartition("/")[0]: content.count(b"\n") for uri, content in place.files.items()}
    root = "s3://bucket/kept/digits"
    assert lines == {
        f"{root}/blue/2023/11/15/11": 1,
        f"{root}/blue/2023/11/15/12": 2,
        f"{root}/green/2023/11/15/12": 1,
    }
    assert all(json.loads(line) for content in place.files.values() for line in content.splitlines())
    assert all(uri.endswith(".jsonl") for uri in place.files)


def test_parquet_is_written_where_it_is_asked_for() -> None:
    place = Place()
    capture = place.capture(CaptureSpec("s3://b", format=PARQUET))
    capture.offer(exchange())
    capture.flush()
    ((uri, content),) = place.files.items()
    assert uri.endswith(".parquet")
    assert content.startswith(b"PAR1")


def test_the_share_that_was_asked_for_is_drawn() -> None:
    draws = iter([0.0, 0.249, 0.25, 0.99])
    capture = Place().capture(CaptureSpec("s3://b", sampled_share=0.25), chance=lambda: next(draws))
    assert [capture.wants_one() for _ in range(4)] == [True, True, False, False]


def test_what_there_is_no_room_for_is_lost_counted_and_told_and_room_comes_back_with_the_next_file() -> None:
    place = Place()
    capture = place.capture(held_count=2)
    for _ in range(5):
        capture.offer(exchange())
    capture.flush()
    assert capture.lost_count == 3
    assert place.told == ["3 captured record(s) were lost: more came than could be written"]
    capture.offer(exchange())
    capture.flush()
    assert (capture.lost_count, len(place.files)) == (3, 2)
    assert place.capture(held_bytes=10).lost_count == 0
    tight = place.capture(held_bytes=10)
    tight.offer(exchange())
    assert tight.lost_count == 1


def test_a_destination_that_refuses_is_told_now_and_then_with_all_that_was_lost() -> None:
    place = Place()
    place.refuses = True
    capture = place.capture()
    for _ in range(3):
        capture.offer(exchange())
        capture.flush()
    assert place.told == ["1 captured record(s) were lost: could not write there: access was denied"]
    place.now += TELL_EVERY_S
    place.refuses = False
    capture.flush()
    assert place.told[1].startswith("2 captured record(s) were lost")


def test_closing_writes_what_waits() -> None:
    place = Place()
    capture = place.capture()
    capture.start()
    capture.offer(exchange())
    capture.close()
    assert len(place.files) == 1
