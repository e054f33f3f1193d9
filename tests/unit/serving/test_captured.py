"""What was captured, read back from real files of both formats: filtered, ordered, a page at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.storage import ObjectStore
from raymaker.serving.capture import Capture
from raymaker.serving.capture_record import Exchange
from raymaker.serving.captured import BadToken, CapturedQuery, Payload, read_captured
from raymaker.serving.spec import JSON_LINES, PARQUET, CaptureSpec
from support import scoring

NOON = 1_700_049_600.0
STORE = ObjectStore()


def keep(folder: Path, *exchanges: Exchange, form: str = JSON_LINES) -> None:
    """Write these to one file for each variant and hour."""
    spec = CaptureSpec(folder.as_uri(), format=form, csv_types=frozenset({"text/csv"}))
    capture = Capture(spec, "digits", STORE.write_bytes, pytest.fail, now=lambda: exchanges[0].time)
    for exchange in exchanges:
        capture.offer(exchange)
    capture.flush()


def exchange(time: float, number: int, variant: str = "blue") -> Exchange:
    sides = {"asked": b"%d" % number, "answered": b"\xff", "answered_type": "a/b"}
    return scoring.exchange(time, variant, **sides, inference_id=f"id-{number}")


def numbers(folder: Path, limit_count: int = 100, token: str | None = None, **query: Any) -> list[int]:
    found, _ = read_captured(STORE, folder.as_uri(), CapturedQuery("digits", **query), limit_count, token)
    return [int(record.asked.data) for record in found]


@pytest.mark.parametrize("form", [JSON_LINES, PARQUET])
def test_records_come_back_as_they_were_on_the_wire(tmp_path: Path, form: str) -> None:
    keep(tmp_path, exchange(NOON + 1.5, 7), form=form)
    ((record,), token) = read_captured(STORE, tmp_path.as_uri(), CapturedQuery("digits"), 10, None)
    assert token is None
    assert (record.time, record.variant, record.inference_id) == (NOON + 1, "blue", "id-7")
    assert record.asked == Payload(b"7", "text/csv")
    assert record.answered == Payload(b"\xff", "a/b")
    assert record.custom_attributes is None


@pytest.mark.parametrize("form", [JSON_LINES, PARQUET])
def test_records_are_found_by_time_variant_and_inference_id(tmp_path: Path, form: str) -> None:
    kept = [exchange(NOON - 10, 1), exchange(NOON, 2), exchange(NOON + 10, 3), exchange(NOON + 10, 4, "green")]
    keep(tmp_path, *kept, form=form)
    assert sorted(numbers(tmp_path)) == [1, 2, 3, 4]
    assert numbers(tmp_path, until=NOON) == [1]
    assert sorted(numbers(tmp_path, since=NOON)) == [2, 3, 4]
    assert numbers(tmp_path, since=NOON, until=NOON + 10) == [2]
    assert numbers(tmp_path, variant="green") == [4]
    assert numbers(tmp_path, inference_id="id-3") == [3]
    assert numbers(tmp_path, inference_id="id-9") == []


def test_pages_hold_as_many_as_were_asked_for_and_together_all_in_order(tmp_path: Path) -> None:
    for start in range(0, 7, 3):
        keep(tmp_path, *(exchange(NOON + number, number) for number in range(start, min(start + 3, 7))))
    pages, token = [], None
    while True:
        found, token = read_captured(STORE, tmp_path.as_uri(), CapturedQuery("digits"), 2, token)
        pages.append([int(record.asked.data) for record in found])
        if token is None:
            break
    assert pages == [[0, 1], [2, 3], [4, 5], [6]]


def test_other_files_and_no_files_are_no_records(tmp_path: Path) -> None:
    assert numbers(tmp_path / "nowhere") == []
    keep(tmp_path, exchange(NOON, 1))
    (tmp_path / "digits" / "blue" / "notes.txt").write_text("not ours")
    assert numbers(tmp_path) == [1]


@pytest.mark.parametrize("token", ["x", "1", "[1]", "[1, 2]", '["a", "b"]'])
def test_a_token_that_was_made_up_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(BadToken):
        numbers(tmp_path, token=token)
