"""What requests on the exchange's socket say, read and checked: query fields, JSON objects, numbers. No I/O.

All of it raises ValueError in words for whoever wrote the request.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from raymaker.actors.exchange.reduce import check_dtype
from raymaker.actors.exchange.seam import DTYPES
from raymaker.actors.exchange.values import check_name
from raymaker.actors.exchange.wire import Request

LONGEST_WAIT_S = 3600.0
MOST_STEP = 2**63
MOST_METRICS = 256
"""How many numbers one request may tell."""
_METRIC_NAME = re.compile(r"\S(.{0,253}\S)?")
_NUMBER = re.compile(r"[0-9]{1,15}")


def take_fields(request: Request, allowed: Iterable[str]) -> Mapping[str, str]:
    """The query's fields, all of them known."""
    unknown = sorted(set(request.query) - set(allowed))
    if unknown:
        raise ValueError(
            f"{unknown[0][:80]!r} is no field of {request.path[:200]}: {', '.join(allowed) or 'it has none'}"
        )
    return request.query


def take_name(request: Request) -> str:
    """The name of a value or document."""
    name = request.path[1:].partition("/")[2]
    check_name(name)
    return name


def take_dtype(fields: Mapping[str, str]) -> str:
    """The element type, which is needed."""
    if "dtype" not in fields:
        raise ValueError(f"dtype is missing: one of {', '.join(DTYPES)}")
    check_dtype(fields["dtype"])
    return fields["dtype"]


def take_number(fields: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    """A whole number; without `otherwise` it is needed."""
    text = fields.get(name)
    if text is None:
        if otherwise is None:
            raise ValueError(f"{name} is missing")
        return otherwise
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} is {text[:40]!r}: a whole number, 0 or more, is wanted")
    return int(text)


def take_seconds(fields: Mapping[str, str], name: str) -> float:
    """How long to wait; 0 where it is left out."""
    text = fields.get(name, "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise ValueError(f"{name} is {text[:40]!r}: a number of seconds from 0 to {LONGEST_WAIT_S:g} is wanted")
    return seconds


def take(asked: Mapping[str, Any], name: str, kind: type, otherwise: Any) -> Any:
    """A field of a JSON object, of one kind."""
    value = asked.get(name, otherwise)
    if type(value) is not kind:  # not isinstance: True is no number here
        raise ValueError(f"{name} is {json.dumps(value)[:80]}: {_KINDS[kind]} is wanted")
    return value


_KINDS = {int: "a whole number", bool: "true or false", str: "text", dict: "an object"}


def take_metrics(asked: Mapping[str, Any]) -> tuple[dict[str, float], int | None]:
    """The numbers that a rank tells, by their names, and its own count of steps where it says one."""
    unknown = sorted(asked.keys() - {"metrics", "step"})
    if unknown:
        raise ValueError(f"{unknown[0][:80]!r} is no field of /metrics: metrics, step")
    step = asked.get("step")
    if step is not None and (type(step) is not int or not -MOST_STEP <= step < MOST_STEP):
        raise ValueError(f"step is {json.dumps(step)[:80]}: a whole number of 64 bits is wanted, or none")
    told = take(asked, "metrics", dict, {})
    if not 0 < len(told) <= MOST_METRICS:
        raise ValueError(f"metrics has {len(told)} numbers: 1 to {MOST_METRICS} are wanted, each by its name")
    return {_metric_name(name): _metric(name, told[name]) for name in told}, step


def _metric_name(name: str) -> str:
    if not _METRIC_NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no name of a metric: 1 to 255 characters, no space around them")
    return name


def _metric(name: str, value: object) -> float:
    """A number, or the words for those that JSON does not have."""
    if type(value) in {int, float} or value in ("NaN", "Infinity", "-Infinity"):
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:
            pass
    raise ValueError(f'{name} is {json.dumps(value)[:80]}: a number is wanted, or "NaN", "Infinity", "-Infinity"')


def parse_object(text: bytes) -> dict[str, Any]:
    """A JSON object, without the numbers that JSON does not have."""
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(parsed, dict):
        raise ValueError('the body is JSON, but no object: {"name": value, …} is wanted')  # noqa: TRY004 - a 400 as well
    return parsed


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
