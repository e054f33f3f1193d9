"""What is captured of one invocation, and how it is laid out: SageMaker's JSON lines, or Parquet with the same fields.

Pure: bytes and names; who writes them where is `capture.py`'s matter, and who reads them `captured.py`'s.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

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


class Exchange(NamedTuple):
    """One invocation and its answer, as they came: what they are captured as is made of it behind the answer.

    `time` is epoch seconds. Header names are in lower case.
    """

    time: float
    variant: str
    asked_headers: Headers
    asked: bytes
    answered_headers: Headers
    answered: bytes

    @property
    def size_bytes(self) -> int:
        """What keeping it costs, about."""
        return len(self.asked) + len(self.answered) + 512

    @property
    def hour(self) -> tuple[str, int]:
        """What those have in common that go to one folder."""
        return self.variant, int(self.time // 3600)


def document_of(exchange: Exchange, spec: CaptureSpec) -> dict[str, Any]:
    """Lay one exchange out as SageMaker does."""
    asked, data = dict(exchange.asked_headers), {}
    if spec.captures_input:
        data["endpointInput"] = _side("INPUT", exchange.asked, asked, spec)
    if spec.captures_output:
        data["endpointOutput"] = _side("OUTPUT", exchange.answered, dict(exchange.answered_headers), spec)
    metadata: dict[str, Any] = {"eventId": str(uuid.uuid4()), "inferenceTime": _time_text(int(exchange.time))}
    if (attributes := asked.get(PREFIX + b"custom-attributes")) is not None:
        metadata["customAttributes"] = [attributes.decode("latin-1")]
    if (inference_id := asked.get(PREFIX + b"inference-id")) is not None:
        metadata["inferenceId"] = inference_id.decode("latin-1")
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


@functools.lru_cache(maxsize=8)
def _time_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime(TIME_FORMAT)


def _side(mode: str, data: bytes, headers: Mapping[bytes, bytes], spec: CaptureSpec) -> dict[str, str]:
    content_type = headers.get(b"content-type", b"").decode("latin-1")
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
