"""What goes to a scoring container and what comes back: Python values as bytes, and the answer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raymaker.platform.client.errors import WrongArgument


@dataclass(frozen=True)
class Answer:
    """What a scoring container answered. `variant` names the production variant that did."""

    body: bytes
    content_type: str
    custom_attributes: str | None = None
    variant: str | None = None

    @property
    def text(self) -> str:
        """The body as text, in the character set that the content type names."""
        _, _, charset = self.content_type.lower().partition("charset=")
        return self.body.decode(charset.split(";")[0].strip(" \"'") or "utf-8")

    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


def encode(data: Any, content_type: str | None) -> tuple[bytes, str]:
    """Turn data into a body and its content type.

    Bytes go as they are, text as UTF-8 (taken for CSV where no type is given), anything else as JSON, or as CSV where
    that is the type. An array is anything with `tolist()`. Raises WrongArgument.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data), content_type or "application/octet-stream"
    if isinstance(data, str):
        return data.encode(), content_type or "text/csv"
    values = data.tolist() if hasattr(data, "tolist") else data
    kind = (content_type or "application/json").partition(";")[0].strip().lower()
    if kind == "text/csv":
        return _to_csv(values), content_type or kind
    if kind == "application/json" or kind.endswith("+json"):
        return _to_json(values), content_type or kind
    raise WrongArgument(f"data is a {type(data).__name__}, which cannot be sent as {content_type}: give bytes or text")


def _to_json(values: Any) -> bytes:
    try:
        return json.dumps(values).encode()
    except (TypeError, ValueError) as error:
        raise WrongArgument(f"data cannot be written as JSON ({error}): give bytes, text, lists and dicts") from error


def _to_csv(values: Any) -> bytes:
    """Write rows, a single row, or a single value."""
    if not isinstance(values, Iterable) or isinstance(values, dict):
        values = [values]
    rows = list(values)
    if not rows or not isinstance(rows[0], (list, tuple)):
        rows = [rows]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
