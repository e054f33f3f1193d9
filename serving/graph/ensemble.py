"""An ensemble's answer: one JSON object of all answers, whatever their content types. Pure.

JSON goes in as it came, byte for byte. Text goes in as a string. Everything else goes in as
`{"ContentType": ..., "Base64": ...}`. The declared content type decides, so that a key always has the same form;
an answer without one is JSON where it can be read as such.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from email.message import Message

from raymaker.serving.forward import ContainerAnswer
from raymaker.serving.graph.expressions import read_json

_TEXTS = {"application/jsonlines", "application/x-ndjson", "application/xml", "application/yaml", "application/csv"}


def member_of(answer: ContainerAnswer) -> str:
    """Write an answer as JSON. Raises ValueError for one that claims to be JSON and is none."""
    declared = next((value.decode("latin-1") for name, value in answer.headers if name == b"content-type"), "")
    content_type, charset = _read_content_type(declared)
    if content_type == "application/json" or content_type.endswith("+json"):
        return read_json(answer.body)[0]
    try:
        if not content_type:
            return read_json(answer.body)[0]
        if content_type.startswith("text/") or content_type.endswith("+xml") or content_type in _TEXTS:
            return json.dumps(answer.body.decode(charset))
    except (ValueError, LookupError):
        pass  # not what it could have been: bytes are left
    return json.dumps({"ContentType": declared, "Base64": base64.b64encode(answer.body).decode()})


def join_members(members: Mapping[str, str]) -> ContainerAnswer:
    """Make the answer of the members, each JSON by itself."""
    body = ",".join(f"{json.dumps(label)}:{member}" for label, member in members.items())
    return ContainerAnswer(200, [(b"content-type", b"application/json")], f"{{{body}}}".encode())


def _read_content_type(declared: str) -> tuple[str, str]:
    """Take a Content-Type apart: the type in lower case and the charset of text, UTF-8 where none is named."""
    if not declared:
        return "", "utf-8"
    message = Message()
    message["content-type"] = declared
    return message.get_content_type() if "/" in declared else declared.lower(), message.get_content_charset("utf-8")
