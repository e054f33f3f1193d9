"""AWS JSON 1.1: what a client's bytes become, and what an operation's answer or error becomes on the wire.

Driven by the service model (`shapes`, `validation`). HTTP itself, and which function answers, are `app`'s.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, NoReturn

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from raymaker.platform.errors import ApiError, SerializationException, ServiceUnavailable
from raymaker.platform.validation import validate

CONTENT_TYPE = "application/x-amz-json-1.1"


@dataclass(frozen=True)
class HttpAnswer:
    """One answer, as HTTP carries it."""

    status: HTTPStatus
    body: bytes
    content_type: str = CONTENT_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


def read_request(operation: OperationModel, body: bytes) -> dict[str, Any]:
    """Parse and validate a request. Raises SerializationException or ValidationException."""
    return validate(operation, parse_json(body))


def parse_json(body: bytes) -> object:
    """Parse strict JSON; an empty body counts as `{}`. Raises SerializationException."""
    if not body:
        return {}
    try:
        document: object = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise SerializationException(f"the body is not UTF-8: byte {error.start} cannot be read") from error
    except RecursionError as error:
        raise SerializationException("the body is nested too deeply; no request here needs that") from error
    except ValueError as error:
        raise SerializationException(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SerializationException(f"the body must be a JSON object, not {type(document).__name__}")
    return document


def write_answer(operation: OperationModel, answer: Mapping[str, Any]) -> HttpAnswer:
    """Serialise an operation's answer. Raises TypeError where the answer is not of the operation's output shape."""
    document = _answer_writer(operation)(answer)
    return HttpAnswer(HTTPStatus.OK, json.dumps(document, separators=(",", ":"), allow_nan=False).encode())


def write_error(error: ApiError) -> HttpAnswer:
    """Serialise an error as botocore reads it."""
    body = json.dumps({"__type": error.code, "message": error.message}).encode()
    return HttpAnswer(error.status, body, headers=error_headers(error))


def write_json(status: HTTPStatus, document: Mapping[str, Any]) -> HttpAnswer:
    """Serialise what is no operation's answer as plain JSON."""
    return HttpAnswer(status, json.dumps(document).encode(), "application/json")


def error_headers(error: ApiError) -> dict[str, str]:
    """Give the headers that go with an error in every protocol."""
    headers = {"x-amzn-ErrorType": error.code}
    if isinstance(error, ServiceUnavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    return headers


Writer = Callable[[Any], Any]


@functools.cache
def _answer_writer(operation: OperationModel) -> Writer:
    """Build what turns an operation's answer into JSON values, once."""
    return _writer(operation.output_shape or StructureShape("Empty", {"type": "structure"}), {})


def _writer(shape: Shape, built: dict[str, Writer]) -> Writer:
    """Build the writer of a shape and of all that it holds; `built` ends the recursion of shapes in themselves."""
    if shape.name in built:
        return built[shape.name]
    if isinstance(shape, StructureShape):
        members: dict[str, Writer] = {}
        built[shape.name] = functools.partial(_write_structure, shape.name, members)
        members.update({name: _writer(member, built) for name, member in shape.members.items()})
    elif isinstance(shape, ListShape):
        built[shape.name] = functools.partial(_write_list, _writer(shape.member, built))
    elif isinstance(shape, MapShape):
        built[shape.name] = functools.partial(_write_map, _writer(shape.value, built))
    else:
        built[shape.name] = functools.partial(_write_scalar, shape.name, shape.type_name)
    return built[shape.name]


def _write_structure(name: str, members: Mapping[str, Writer], value: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := value.keys() - members.keys():
        raise TypeError(f"the shape {name} has no member {', '.join(sorted(unknown))}")
    return {key: members[key](inner) for key, inner in value.items() if inner is not None}


def _write_list(member: Writer, value: Any) -> list[Any]:
    return [member(inner) for inner in value]


def _write_map(member: Writer, value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: member(inner) for key, inner in value.items()}


def _write_scalar(name: str, type_name: str, value: Any) -> Any:
    """Write a scalar of a shape. Numbers that are not finite become words, as Smithy's awsJson protocols have it."""
    match type_name, value:
        case "string", str():
            return value
        case "boolean", bool():
            return value
        case (("float" | "double" | "integer" | "long"), bool()):
            pass
        case (("integer" | "long"), int()):
            return value
        case (("float" | "double"), (int() | float())):
            return value if math.isfinite(value) else _NOT_FINITE[str(float(value))]
        case "timestamp", datetime(tzinfo=zone) if zone is not None:
            return value.timestamp()
        case "blob", bytes():
            return base64.b64encode(value).decode("ascii")
    raise TypeError(f"the shape {name} wants a {type_name}, not {value!r}")


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _refuse_constant(name: str) -> NoReturn:
    """Refuse the numbers that Python reads and JSON does not know."""
    raise ValueError(f"{name} is not a JSON number")
