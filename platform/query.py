"""AWS's Query protocol, form in and XML out, which STS still speaks. Only flat answers, as GetCallerIdentity's is."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from botocore.model import OperationModel

from raymaker.platform.errors import ApiError, SerializationException, ServerError, ValidationException
from raymaker.platform.wire import HttpAnswer, error_headers

CONTENT_TYPE = "application/x-www-form-urlencoded"
NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
_FIELD_COUNT = 100


def read_form(body: bytes) -> dict[str, str]:
    """Parse a form. Raises SerializationException, and ValidationException for a field that is given twice."""
    try:
        fields = parse_qs(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_FIELD_COUNT,
        )
    except ValueError as error:
        raise SerializationException(f"the body is not a form: {error}") from error
    for name, values in fields.items():
        if len(values) > 1:
            raise ValidationException(f"the field {name!a} is given {len(values)} times; give it once")
    return {name: values[0] for name, values in fields.items()}


def write_answer(operation: OperationModel, answer: Mapping[str, Any], request_id: str) -> HttpAnswer:
    """Serialise a flat answer of strings as XML."""
    name = operation.name
    members = operation.output_shape.members if operation.output_shape else {}
    if unknown := answer.keys() - members.keys():
        raise TypeError(f"the answer of {name} has no member {', '.join(sorted(unknown))}")
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in answer.items())
    text = (
        f'<{name}Response xmlns="{NAMESPACE}"><{name}Result>{inner}</{name}Result>'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>"
    )
    return HttpAnswer(HTTPStatus.OK, text.encode(), "text/xml")


def write_error(error: ApiError, request_id: str) -> HttpAnswer:
    """Serialise an error as XML."""
    fault = "Receiver" if isinstance(error, ServerError) else "Sender"
    text = (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>{fault}</Type><Code>{error.code}</Code>'
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return HttpAnswer(error.status, text.encode(errors="backslashreplace"), "text/xml", error_headers(error))
