"""What is captured of one invocation, and how it is laid out: SageMaker's JSON lines, or Parquet with the same fields.

Pure: bytes and names; who writes them where is `capture.py`'s matter, and who reads them `captured.py`'s.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from raymaker.serving.backend import Invocation
from raymaker.serving.runtime_wire import PREFIX, Headers
from raymaker.serving.spec import JSON_LINES, PARQUET, CaptureSpec

SUFFIXES = {JSON_LINES: ".jsonl", PARQUET: ".parquet"}
ROW_GROUP_COUNT = 500
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
"""SageMaker's, in UTC. Times in it sort as text."""

_SIDE = pa.struct(
    [
        ("observedContentType", pa.string()),
        ("mode", pa.string()),
        ("data", pa.string()),
        ("encoding", pa.string()),
    ]
)
_METADATA = pa.struct(
    [
        ("eventId", pa.string()),
        ("customAttributes", pa.list_(pa.string())),
        ("inferenceId", pa.string()),
        ("inferenceTime", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("captureData", pa.struct([("endpointInput", _SIDE), ("endpointOutput", _SIDE)])),
        ("eventMetadata", _METADATA),
        ("eventVersion", pa.string()),
    ]
)


@dataclass(frozen=True)
class Exchange:
    """One invocation and its answer. `time` is epoch seconds."""

    time: float
    variant: str
    asked: bytes
    asked_type: str
    answered: bytes
    answered_type: str
    inference_id: str | None = None
    custom_attributes: str | None = None
    event_id: str | None = None
    """None: made up when it is laid out, behind the answer."""

    @property
    def size_bytes(self) -> int:
        """What keeping it costs, about."""
        return len(self.asked) + len(self.answered) + 512


def exchange_of(
    invocation: Invocation, headers: Headers, answered: bytes, variant: str, captured_at: float
) -> Exchange:
    """Take down what was asked and answered. `headers` are the answer's."""
    asked, told = dict(invocation.headers), dict(headers)
    return Exchange(
        time=captured_at,
        variant=variant,
        asked=invocation.body,
        asked_type=asked.get(b"content-type", b"").decode("latin-1"),
        answered=answered,
        answered_type=told.get(b"content-type", b"").decode("latin-1"),
        inference_id=_text(asked.get(PREFIX + b"inference-id")),
        custom_attributes=_text(asked.get(PREFIX + b"custom-attributes")),
    )


def document_of(exchange: Exchange, spec: CaptureSpec) -> dict[str, Any]:
    """Lay one exchange out as SageMaker does."""
    data = {}
    if spec.captures_input:
        data["endpointInput"] = _side("INPUT", exchange.asked, exchange.asked_type, spec)
    if spec.captures_output:
        data["endpointOutput"] = _side("OUTPUT", exchange.answered, exchange.answered_type, spec)
    metadata: dict[str, Any] = {
        "eventId": exchange.event_id or str(uuid.uuid4()),
        "inferenceTime": datetime.fromtimestamp(exchange.time, UTC).strftime(TIME_FORMAT),
    }
    if exchange.custom_attributes is not None:
        metadata["customAttributes"] = [exchange.custom_attributes]
    if exchange.inference_id is not None:
        metadata["inferenceId"] = exchange.inference_id
    return {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}


def encode_file(documents: Iterable[dict[str, Any]], form: str) -> bytes:
    """Make one file's content of documents, in their order."""
    if form == PARQUET:
        rest, content = iter(documents), io.BytesIO()
        with pyarrow.parquet.ParquetWriter(content, SCHEMA, compression="zstd") as file:
            while part := list(itertools.islice(rest, ROW_GROUP_COUNT)):
                file.write_table(pa.Table.from_pylist(part, SCHEMA))
        return content.getvalue()
    return b"".join(json.dumps(document, separators=(",", ":")).encode() + b"\n" for document in documents)


def folder_of(endpoint_name: str, variant: str, time: float) -> str:
    """Name the folder below the destination that exchanges of this hour go to."""
    return f"{endpoint_name}/{variant}/{datetime.fromtimestamp(time, UTC):%Y/%m/%d/%H}"


def file_name(time: float, form: str) -> str:
    """Name a file that is written at this time; no two have the same name."""
    return f"{datetime.fromtimestamp(time, UTC):%M-%S-%f}-{uuid.uuid4()}{SUFFIXES[form]}"


def decode_data(data: str, encoding: str) -> bytes:
    """Give back the bytes that were captured."""
    return base64.b64decode(data) if encoding == "BASE64" else data.encode()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _side(mode: str, data: bytes, content_type: str, spec: CaptureSpec) -> dict[str, str]:
    text, encoding = _encode(data, content_type.partition(";")[0].strip().lower(), spec)
    return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}


def _encode(data: bytes, media_type: str, spec: CaptureSpec) -> tuple[str, str]:
    """Keep text as text where its type says so, and it is; else as base64."""
    encoding = "CSV" if media_type in spec.csv_types else "JSON" if media_type in spec.json_types else "BASE64"
    if encoding != "BASE64":
        try:
            return data.decode(), encoding
        except UnicodeDecodeError:  # in another character set, or not what its type says
            pass
    return base64.b64encode(data).decode(), "BASE64"
