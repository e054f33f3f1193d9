"""Requests against the service model: every member checked, every fault named in AWS's words, values made Python's.

Checks are built once per operation from its shapes. Rules that no shape says (which names exist) are the operations'.
"""

from __future__ import annotations

import base64
import binascii
import functools
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape

from raymaker.platform.errors import ValidationException
from raymaker.platform.patterns import compile_pattern

_LISTED_COUNT = 20
_SHOWN_CHARACTERS = 100
_INTEGER_BITS = {"integer": 32, "long": 64}


def validate(operation: OperationModel, value: object) -> dict[str, Any]:
    """Check a parsed request; answer it without nulls, its times as datetimes in UTC and its blobs as bytes.

    Raises ValidationException that names every faulty member, or the first twenty.
    """
    faults = Faults()
    answer = _request_check(operation)(value, "", faults)
    faults.raise_any()
    return dict(answer)


@dataclass
class Faults:
    """What is wrong with one request, gathered in AWS's words."""

    listed: list[str] = field(default_factory=list)

    def add(self, value: object, at: str, constraint: str) -> None:
        """Note that `value` at the path `at` breaks `constraint`, which says what the member must be.

        Raises ValidationException when twenty are noted: more help nobody, and a hostile request may have a million.
        """
        self.listed.append(f"Value {_show(value)} at '{at}' failed to satisfy constraint: {constraint}")
        if len(self.listed) == _LISTED_COUNT:
            self.raise_any()

    def raise_any(self) -> None:
        """Raise ValidationException where anything was noted."""
        if self.listed:
            plural = "s" if len(self.listed) > 1 else ""
            text = "; ".join(self.listed)
            raise ValidationException(f"{len(self.listed)} validation error{plural} detected: {text}")


class Check(Protocol):
    """Checks one value, notes its faults, and gives it as Python has it (None where it is of the wrong type)."""

    def __call__(self, value: object, at: str, faults: Faults) -> Any:
        """Check `value`, which stands at the path `at`."""


@dataclass(frozen=True)
class _Size:
    """The `min` and `max` of a shape, which mean a length or a value."""

    least: float | None
    most: float | None
    of: str

    def check(self, size: float, value: object, at: str, faults: Faults) -> bool:
        """Tell whether `size` fits, and note the fault where it does not."""
        if self.least is not None and size < self.least:
            faults.add(value, at, f"Member must have {self.of} greater than or equal to {self.least}")
            return False
        if self.most is not None and size > self.most:
            faults.add(value, at, f"Member must have {self.of} less than or equal to {self.most}")
            return False
        return True


class _Structure:
    """An object whose members the shape names; a null member counts as absent, an unknown one as a fault."""

    def __init__(self, required: list[str]) -> None:
        self.required = required
        self.members: dict[str, tuple[str, Check]] = {}

    def __call__(self, value: object, at: str, faults: Faults) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            faults.add(value, at, "Member must be an object")
            return None
        answer = {}
        for name, inner in value.items():
            member = self.members.get(name)
            if member is None:
                self._refuse(name, inner, at, faults)
            elif inner is not None:
                answer[name] = member[1](inner, _join(at, member[0]), faults)
        for name in self.required:
            if value.get(name) is None:
                faults.add(None, _join(at, _lower_first(name)), "Member must not be null")
        return answer

    def _refuse(self, name: str, inner: object, at: str, faults: Faults) -> None:
        near = next((known for known in self.members if known.lower() == name.lower()), None)
        hint = f"is {near} in this API" if near else "is not known to this API; leave it out or correct its name"
        faults.add(inner, _join(at, _printable(name)), f"Member {hint}")


@dataclass(frozen=True)
class _List:
    """An array of one kind of member."""

    size: _Size
    member: Check

    def __call__(self, value: object, at: str, faults: Faults) -> list[Any] | None:
        if not isinstance(value, list):
            faults.add(value, at, "Member must be a list")
            return None
        if not self.size.check(len(value), value, at, faults):
            return None
        return [_present(self.member, inner, f"{at}.{n}.member", faults) for n, inner in enumerate(value, start=1)]


@dataclass(frozen=True)
class _Map:
    """An object whose keys the client chooses."""

    size: _Size
    key: Check
    value: Check

    def __call__(self, value: object, at: str, faults: Faults) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            faults.add(value, at, "Member must be an object")
            return None
        if not self.size.check(len(value), value, at, faults):
            return None
        for key in value:
            self.key(key, f"{at}.key", faults)
        return {key: _present(self.value, inner, f"{at}.{_printable(key)}", faults) for key, inner in value.items()}


@dataclass(frozen=True)
class _String:
    """Text that a database, a file name or an environment variable can hold, within the shape's bounds."""

    size: _Size
    pattern: re.Pattern[str] | None
    pattern_text: str
    enum: frozenset[str]
    enum_text: str

    def __call__(self, value: object, at: str, faults: Faults) -> str | None:
        if not isinstance(value, str):
            faults.add(value, at, "Member must be a string")
        elif not _is_storable(value):
            faults.add(value, at, "Member must not contain NUL or half of a surrogate pair")
        elif self.enum and value not in self.enum:
            faults.add(value, at, f"Member must satisfy enum value set: {self.enum_text}")
        elif not self.size.check(len(value), value, at, faults):
            return None
        elif self.pattern is not None and not self.pattern.fullmatch(value):
            faults.add(value, at, f"Member must satisfy regular expression pattern: {self.pattern_text}")
        else:
            return value
        return None


@dataclass(frozen=True)
class _Integer:
    """A whole number of 32 or 64 bits."""

    size: _Size
    bits: int

    def __call__(self, value: object, at: str, faults: Faults) -> int | None:
        if not isinstance(value, int) or isinstance(value, bool):
            faults.add(value, at, "Member must be an integer")
        elif not -(1 << self.bits - 1) <= value < 1 << self.bits - 1:
            faults.add(value, at, f"Member must be an integer of {self.bits} bits")
        elif self.size.check(value, value, at, faults):
            return value
        return None


@dataclass(frozen=True)
class _Float:
    """A finite number."""

    size: _Size

    def __call__(self, value: object, at: str, faults: Faults) -> float | None:
        number = _finite(value)
        if number is None:
            faults.add(value, at, "Member must be a finite number")
        elif self.size.check(number, value, at, faults):
            return number
        return None


def _check_boolean(value: object, at: str, faults: Faults) -> bool | None:
    if isinstance(value, bool):
        return value
    faults.add(value, at, "Member must be true or false")
    return None


def _check_timestamp(value: object, at: str, faults: Faults) -> datetime | None:
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if (seconds := _finite(value)) is not None:
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    faults.add(value, at, "Member must be a time: seconds since 1970 or ISO 8601")
    return None


@dataclass(frozen=True)
class _Blob:
    """Bytes, which JSON carries as base64."""

    size: _Size

    def __call__(self, value: object, at: str, faults: Faults) -> bytes | None:
        try:
            content = base64.b64decode(value, validate=True) if isinstance(value, str) else None
        except (binascii.Error, ValueError):
            content = None
        if content is None:
            faults.add(value, at, "Member must be base64")
        elif self.size.check(len(content), value, at, faults):
            return content
        return None


@functools.cache
def _request_check(operation: OperationModel) -> Check:
    """Build the check of an operation's input, once."""
    return _build(operation.input_shape or StructureShape("Empty", {"type": "structure"}), {})


def _build(shape: Shape, built: dict[str, Check]) -> Check:
    """Build the check of a shape and of all that it holds; `built` ends the recursion of those in themselves."""
    if shape.name not in built:
        if isinstance(shape, StructureShape):
            built[shape.name] = structure = _Structure(shape.required_members)
            for name, member in shape.members.items():
                structure.members[name] = (_lower_first(name), _build(member, built))
        else:
            built[shape.name] = _build_plain(shape, built)
    return built[shape.name]


def _build_plain(shape: Shape, built: dict[str, Check]) -> Check:
    """Build the check of anything but a structure."""
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    length, amount = _Size(least, most, "length"), _Size(least, most, "value")
    check: Check
    match shape:
        case ListShape():
            check = _List(length, _build(shape.member, built))
        case MapShape():
            check = _Map(length, _build(shape.key, built), _build(shape.value, built))
        case StringShape():
            pattern, enum = shape.metadata.get("pattern", ""), shape.enum
            compiled = compile_pattern(pattern) if pattern else None
            check = _String(length, compiled, pattern, frozenset(enum), f"[{', '.join(enum)}]")
        case Shape(type_name="integer" | "long"):
            check = _Integer(amount, _INTEGER_BITS[shape.type_name])
        case Shape(type_name="float" | "double"):
            check = _Float(amount)
        case Shape(type_name="blob"):
            check = _Blob(length)
        case Shape(type_name="boolean"):
            check = _check_boolean
        case Shape(type_name="timestamp"):
            check = _check_timestamp
        case _:
            raise TypeError(f"shape {shape.name} is of the type {shape.type_name}, which no request has had so far")
    return check


def _present(check: Check, value: object, at: str, faults: Faults) -> Any:
    """Check a member of a list or map, where null does not count as absent."""
    if value is None:
        return faults.add(None, at, "Member must not be null")
    return check(value, at, faults)


def _finite(value: object) -> float | None:
    """Give a JSON number as a float; None for what is no number, or too large to be one."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_storable(text: str) -> bool:
    """Tell whether UTF-8 can carry the text, and C's strings too."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text))


def _show(value: object) -> str:
    """Show a faulty value to the client, no more of it than helps."""
    match value:
        case None:
            return "null"
        case str():
            return f"'{_printable(value)}'"
        case bool():
            return "true" if value else "false"
        case dict():
            return "{…}"
        case list():
            return "[…]"
    return _printable(str(value))


def _printable(text: str) -> str:
    """Shorten hostile text, and write what no terminal should be sent as escapes."""
    short = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in short)


def _join(at: str, name: str) -> str:
    """Extend a path by a member."""
    return f"{at}.{name}" if at else name


def _lower_first(name: str) -> str:
    """Write a member's name as AWS does in its messages."""
    return name[0].lower() + name[1:]
