"""The event stream of InvokeEndpointWithResponseStream, as boto3 reads it: pieces of an answer, or why it broke off.

Pure. The encoding is Amazon's `application/vnd.amazon.eventstream`, of which botocore has the decoder only.
"""

from __future__ import annotations

import json
import struct
from binascii import crc32

CONTENT_TYPE = b"application/vnd.amazon.eventstream"

PRELUDE_BYTES = 12
"""Two lengths and their checksum; the checksum of the whole follows the payload."""
CHECKSUM_BYTES = 4
STRING = 7
"""The type of a header whose value is text: the only one that these events have."""

MODEL_STREAM_ERROR = "ModelStreamError"
INTERNAL_STREAM_FAILURE = "InternalStreamFailure"


def payload_part(piece: bytes) -> bytes:
    """Encode one piece of the container's answer."""
    return _message(_PART_HEADERS, piece)


def failure(kind: str, message: str, error_code: str | None = None) -> bytes:
    """Encode why the stream ends here: a ModelStreamError, which has an error code, or an InternalStreamFailure."""
    members = {"Message": message} | ({"ErrorCode": error_code} if error_code else {})
    headers = _headers(
        {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"},
    )
    return _message(headers, json.dumps(members).encode())


def _message(headers: bytes, payload: bytes) -> bytes:
    length = PRELUDE_BYTES + len(headers) + len(payload) + CHECKSUM_BYTES
    lengths = struct.pack("!II", length, len(headers))
    body = b"".join((lengths, struct.pack("!I", crc32(lengths)), headers, payload))
    return body + struct.pack("!I", crc32(body))


def _headers(values: dict[str, str]) -> bytes:
    """Encode headers: each name and value with its length before it."""
    encoded = b""
    for name, value in values.items():
        encoded += struct.pack("!B", len(name)) + name.encode()
        encoded += struct.pack("!BH", STRING, len(value)) + value.encode()
    return encoded


_PART_HEADERS = _headers(
    {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"},
)
