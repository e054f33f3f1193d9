"""What was captured, read back: by time, variant and inference id, a page at a time, from either format.

Files are found by their names, which tell variant and hour, and read by pyarrow. Nothing is written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.json

from raymaker.actors.errors import ObjectNotFound
from raymaker.actors.storage import ObjectInfo, ObjectStore, child_uri
from raymaker.serving.capture_record import SCHEMA, SUFFIXES, TIME_FORMAT, decode_data

FILE_BYTES = 1024 * 1024 * 1024
"""The largest file that is read: several times the largest that is written."""
PAGE_BYTES = 16 * 1024 * 1024
JSON_BLOCK_BYTES = 1024 * 1024
_NAME = re.compile(r"(?P<variant>[^/]+)/(?P<hour>\d{4}/\d\d/\d\d/\d\d)/(?P<file>[^/]+)")


@dataclass(frozen=True)
class CapturedQuery:
    """Which records are wanted. Times are epoch seconds, the first one inclusive, the last one not."""

    endpoint_name: str
    since: float | None = None
    until: float | None = None
    variant: str | None = None
    inference_id: str | None = None


@dataclass(frozen=True)
class Payload:
    """One side of an exchange, as it was on the wire."""

    data: bytes
    content_type: str


@dataclass(frozen=True)
class CapturedRecord:
    """One captured exchange. `time` is epoch seconds; a side that was not captured is None."""

    event_id: str
    time: float
    variant: str
    inference_id: str | None
    custom_attributes: str | None
    asked: Payload | None
    answered: Payload | None

    @property
    def size_bytes(self) -> int:
        """How much data it holds."""
        return sum(len(side.data) for side in (self.asked, self.answered) if side is not None)


class BadToken(ValueError):
    """A token that names no place to go on from."""


def read_captured(
    store: ObjectStore, destination_uri: str, query: CapturedQuery, limit_count: int, token: str | None
) -> tuple[list[CapturedRecord], str | None]:
    """Read one page, in the order of writing, and the token of the next. Raises BadToken, StorageError.

    A page ends early where its records are large.
    """
    first_place, begun_count = _read_token(token)
    found: list[CapturedRecord] = []
    found_bytes = 0
    for place, variant, item in _files(store, destination_uri, query):
        if place < first_place:
            continue
        for number, record in enumerate(_read_file(store, item, variant, query)):
            if place == first_place and number < begun_count:
                continue
            if len(found) >= limit_count or found_bytes >= PAGE_BYTES:
                return found, json.dumps([place, number])
            found.append(record)
            found_bytes += record.size_bytes
    return found, None


def _files(store: ObjectStore, destination_uri: str, query: CapturedQuery) -> Iterator[tuple[str, str, ObjectInfo]]:
    """Yield the files that may hold such records, oldest first: a name to order them by, the variant, the file."""
    try:
        objects = store.list_objects(child_uri(destination_uri, f"{query.endpoint_name}/"))
    except ObjectNotFound:
        return
    first, last = _hour(query.since), _hour(query.until)
    found = []
    for item in objects:
        name = _NAME.fullmatch(item.relative_name)
        if name is None or not name["file"].endswith(tuple(SUFFIXES.values())):
            continue
        is_wanted = query.variant in {None, name["variant"]}
        if is_wanted and (first or "") <= name["hour"] <= (last or "9"):
            found.append((f"{name['hour']}/{name['file']}", name["variant"], item))
    yield from sorted(found, key=lambda entry: entry[0])


def _read_file(store: ObjectStore, item: ObjectInfo, variant: str, query: CapturedQuery) -> list[CapturedRecord]:
    try:
        content = store.read_bytes(item.uri, FILE_BYTES)
    except ObjectNotFound:  # removed meanwhile
        return []
    if item.uri.endswith(SUFFIXES["Parquet"]):
        form: Any = ds.ParquetFileFormat()
    else:  # a line must lie within one block
        block_bytes = max(JSON_BLOCK_BYTES, len(content))
        form = ds.JsonFileFormat(read_options=pyarrow.json.ReadOptions(block_size=block_bytes))
    fragment = form.make_fragment(pa.BufferReader(content))
    table = ds.Scanner.from_fragment(fragment, schema=SCHEMA, filter=_condition(query)).to_table()
    return [_record(row, variant) for row in table.to_pylist()]


def _condition(query: CapturedQuery) -> Any:
    time = ds.field("eventMetadata", "inferenceTime")
    conditions = []
    if query.since is not None:
        conditions.append(time >= _text(query.since))
    if query.until is not None:
        conditions.append(time < _text(query.until))
    if query.inference_id is not None:
        conditions.append(ds.field("eventMetadata", "inferenceId") == query.inference_id)
    return reduce(and_, conditions) if conditions else None


def _record(row: dict[str, Any], variant: str) -> CapturedRecord:
    metadata, data = row["eventMetadata"], row["captureData"]
    return CapturedRecord(
        event_id=metadata["eventId"],
        time=datetime.strptime(metadata["inferenceTime"], TIME_FORMAT).replace(tzinfo=UTC).timestamp(),
        variant=variant,
        inference_id=metadata["inferenceId"],
        custom_attributes=(metadata["customAttributes"] or [None])[0],
        asked=_payload(data["endpointInput"]),
        answered=_payload(data["endpointOutput"]),
    )


def _payload(side: dict[str, str] | None) -> Payload | None:
    if side is None or side["data"] is None:
        return None
    return Payload(decode_data(side["data"], side["encoding"]), side["observedContentType"])


def _hour(time: float | None) -> str | None:
    return None if time is None else f"{datetime.fromtimestamp(time, UTC):%Y/%m/%d/%H}"


def _text(time: float) -> str:
    """A time as records have it. A part of a second counts up: records are as of the whole second before."""
    return datetime.fromtimestamp(time, UTC).strftime(TIME_FORMAT)


def _read_token(token: str | None) -> tuple[str, int]:
    if token is None:
        return "", 0
    try:
        place, count = json.loads(token)
    except (ValueError, TypeError):
        raise BadToken(token) from None
    if not isinstance(place, str) or not isinstance(count, int):
        raise BadToken(token)
    return place, max(0, count)
