"""What a rank can ask over its socket: requests become calls of the session, and what comes of them answers.

The documented wire (docs/exchange.md) in code. Who waits for whom is session.py's, bytes on sockets are wire.py's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from raymaker.actors.exchange.reduce import (
    Room,
    as_elements,
    check_dtype,
    check_operation,
    count_elements,
    see_bytes,
)
from raymaker.actors.exchange.rendezvous import Cause, Conflict, Member
from raymaker.actors.exchange.seam import DTYPES, Call, Failure, Value
from raymaker.actors.exchange.session import Ended, Session
from raymaker.actors.exchange.values import TooLarge, check_name
from raymaker.actors.exchange.wire import JSON, OCTETS, Connection, Limits, Refusal, Request

DOCUMENT_BYTES = 64 * 1024
LONGEST_WAIT_S = 3600.0
_MESSAGE_LENGTH = 4096
_STATUS = {Cause.DISAGREEMENT: 409, Cause.GONE: 410, Cause.LATE: 504}
_VERSION = "X-Value-Version"
_CONTENT_TYPE = re.compile(r"[!-~][ -~]{0,199}")
_NUMBER = re.compile(r"[0-9]{1,15}")


MOST_STEP = 2**63
MOST_METRICS = 256
"""How many numbers one request may tell."""
_METRIC_NAME = re.compile(r"\S(.{0,253}\S)?")

OnMetrics = Callable[[int, Mapping[str, float], int | None], None]
"""Takes a rank, its numbers by name, and its own count of steps where it says one."""


class Caller:
    """One connection of one rank."""

    def __init__(
        self, session: Session, rank: int, connection: Connection, limits: Limits, on_metrics: OnMetrics
    ) -> None:
        self._session = session
        self._rank = rank
        self._connection = connection
        self._limits = limits
        self._on_metrics = on_metrics
        self._process = connection.process
        self._has_joined = False
        self._room = Room()

    def serve(self) -> None:
        """Answer until the caller hangs up. Where it had joined here, that ends the rank."""
        try:
            self._connection.converse(self._answer)
        finally:
            if self._has_joined:
                self._session.lose(self._rank)

    def _answer(self, request: Request) -> None:
        handle = _find_route(request)
        try:
            handle(self, request)
        except Ended as ended:
            raise Refusal(_STATUS[ended.cause], ended.failure.message, ended.failure.rank) from None
        except Conflict as conflict:
            raise Refusal(409, str(conflict), self._rank) from None
        except TooLarge as error:
            raise Refusal(413, str(error)) from None
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        except MemoryError:
            raise Refusal(413, f"this machine has no memory left for {request.length} bytes") from None

    def tell(self, request: Request) -> None:
        """GET /: where this rank stands."""
        _take_fields(request, ())
        self._answer_json(self._describe())

    def join(self, request: Request) -> None:
        """POST /join: this connection is the rank's life line from now on."""
        _take_fields(request, ())
        asked = self._read_json(request)
        member = Member(
            pid=_take(asked, "pid", int, self._process),
            process=self._process,
            arena=_take(asked, "arena", bool, False),
            numpy=_take(asked, "numpy", bool, False),
        )
        self._session.join(self._rank, member)
        self._has_joined = True
        mode = self._session.await_mode(self._rank, self._connection.has_hung_up)
        self._answer_json({**asdict(mode), **self._describe()})

    def leave(self, request: Request) -> None:
        """POST /leave: this rank makes no more calls."""
        _take_fields(request, ())
        self._session.leave(self._rank)
        self._answer_json({})

    def fail(self, request: Request) -> None:
        """POST /fail: nobody can go on; the answer is the first reason of all."""
        _take_fields(request, ())
        asked = self._read_json(request)
        message, rank = _take(asked, "message", str, ""), asked.get("rank")
        if not message:
            raise ValueError("message is missing: say why nobody can go on")
        if rank is not None and (type(rank) is not int or not 0 <= rank < self._session.place.world_size):
            raise ValueError(f"rank is none of 0 to {self._session.place.world_size - 1}, and not null")
        self._answer_json(_write_failure(self._session.fail(Failure(message[:_MESSAGE_LENGTH], rank))))

    def tell_metrics(self, request: Request) -> None:
        """POST /metrics: numbers of this rank. Any process may tell them, and nobody waits for them."""
        _take_fields(request, ())
        asked = self._read_json(request)
        unknown = sorted(asked.keys() - {"metrics", "step"})
        if unknown:
            raise ValueError(f"{unknown[0][:80]!r} is no field of /metrics: metrics, step")
        step = asked.get("step")
        if step is not None and (type(step) is not int or not -MOST_STEP <= step < MOST_STEP):
            raise ValueError(f"step is {json.dumps(step)[:80]}: a whole number of 64 bits is wanted, or none")
        told = _take(asked, "metrics", dict, {})
        if not 0 < len(told) <= MOST_METRICS:
            raise ValueError(f"metrics has {len(told)} numbers: 1 to {MOST_METRICS} are wanted, each by its name")
        self._on_metrics(self._rank, {_take_metric_name(name): _take_metric(name, told[name]) for name in told}, step)
        self._answer_json({})

    def all_reduce(self, request: Request) -> None:
        """POST /all-reduce?op=&dtype=."""
        fields = _take_fields(request, ("op", "dtype"))
        dtype, operation = _take_dtype(fields), fields.get("op", "sum")
        check_operation(operation, dtype)
        self._collect(request, Call("all-reduce", dtype, count_elements(request.length, dtype), operation))

    def broadcast(self, request: Request) -> None:
        """POST /broadcast?root=&dtype=&count=: only the root's body is looked at; others may give its count instead."""
        fields = _take_fields(request, ("root", "dtype", "count"))
        dtype, root = _take_dtype(fields), _take_number(fields, "root")
        if root >= self._session.place.world_size:
            raise ValueError(f"root {root} is no rank of this job: it has {self._session.place.world_size}")
        count = count_elements(request.length, dtype)
        if "count" in fields:
            expected = _take_number(fields, "count")
            if (request.length or self._rank == root) and expected != count:
                raise ValueError(f"count is {expected}, but the body has {count} {dtype}")
            count = expected
        elif not request.length and self._rank != root:
            raise ValueError(f"count is missing: say how many {dtype} rank {root} sends, or send a body of that length")
        self._check_size(count * DTYPES[dtype])
        self._collect(request, Call("broadcast", dtype, count, root=root))

    def all_gather(self, request: Request) -> None:
        """POST /all-gather?dtype=."""
        dtype = _take_dtype(_take_fields(request, ("dtype",)))
        self._check_size(request.length * self._session.place.world_size)
        self._collect(request, Call("all-gather", dtype, count_elements(request.length, dtype)))

    def barrier(self, request: Request) -> None:
        """POST /barrier."""
        _take_fields(request, ())
        if request.length:
            raise ValueError("a barrier has no body")
        self._collect(request, Call("barrier"))

    def put_value(self, request: Request) -> None:
        """PUT /values/<name>."""
        _take_fields(request, ())
        name, content_type = _take_name(request), request.headers.get("content-type", OCTETS)
        if not _CONTENT_TYPE.fullmatch(content_type):
            raise ValueError("Content-Type is longer than 200 characters, or not of ASCII")
        self._answer_version(self._session.put_value(self._rank, name, self._read_bytes(request), content_type))

    def add_value(self, request: Request) -> None:
        """POST /values/<name>?add&dtype=."""
        fields = _take_fields(request, ("add", "dtype"))
        if "add" not in fields:
            raise ValueError("add is missing: POST /values/<name>?add&dtype=… adds to a value, PUT replaces it")
        name, dtype = _take_name(request), _take_dtype(fields)
        count_elements(request.length, dtype)
        self._answer_version(self._session.add_value(self._rank, name, self._read_bytes(request), dtype))

    def get_value(self, request: Request) -> None:
        """GET /values/<name>?after=&wait_s=."""
        value = self._find_value(request)
        self._connection.answer(200, value.content, value.content_type, {_VERSION: str(value.version)})

    def put_document(self, request: Request) -> None:
        """PUT /documents/<name>: a small JSON object."""
        _take_fields(request, ())
        name = _take_name(request)
        text = self._read_text(request)
        _parse_object(text)
        self._answer_version(self._session.put_value(self._rank, name, text, JSON))

    def get_document(self, request: Request) -> None:
        """GET /documents/<name>?after=&wait_s=."""
        value = self._find_value(request)
        if value.content_type.partition(";")[0].strip().lower() != JSON:
            raise Refusal(404, f"{_take_name(request)} is a value of {value.content_type}, not a document")
        self._connection.answer(200, value.content, JSON, {_VERSION: str(value.version)})

    def _collect(self, request: Request, call: Call) -> None:
        self._session.check_caller(self._rank, self._process)
        body = self._room.take(request.length)
        self._connection.read(see_bytes(body))
        part = as_elements(body, call.dtype or "uint8")
        del body  # what sees it from here on is the call
        has_hung_up = self._connection.has_hung_up
        result = self._session.collect(self._rank, self._process, call, part, has_hung_up)
        self._connection.answer(200, result)

    def _check_size(self, length: int) -> None:
        if length > self._limits.body_bytes:
            most = self._limits.body_bytes
            raise TooLarge(f"the result would have {length} bytes: at most {most} are sent")

    def _find_value(self, request: Request) -> Value:
        fields, name = _take_fields(request, ("after", "wait_s")), _take_name(request)
        after, wait_s = _take_number(fields, "after", 0), _take_seconds(fields, "wait_s")
        has_hung_up = self._connection.has_hung_up
        value = self._session.get_value(self._rank, name, after, wait_s, has_hung_up)
        if value is None:
            newer = f" newer than version {after}" if after else ""
            raise Refusal(404, f"there is no value {name}{newer}" + (f", {wait_s:g} s long" if wait_s else ""))
        return value

    def _describe(self) -> dict[str, object]:
        session, place = self._session, self._session.place
        return {
            "rank": self._rank,
            "world_size": place.world_size,
            "local_rank": self._rank - place.ranks[0],
            "local_world_size": len(place.ranks),
            "machine_index": place.machine_index,
            "machine_count": place.machine_count,
            "hosts": place.hosts,
            "timeout_s": session.timeout_s,
            "failure": _write_failure(session.failure) if session.failure else None,
        }

    def _read_bytes(self, request: Request) -> bytes:
        content = bytearray(request.length)
        self._connection.read(memoryview(content))
        return bytes(content)

    def _read_text(self, request: Request) -> bytes:
        if request.length > DOCUMENT_BYTES:
            raise TooLarge(f"a document of {request.length} bytes is too large: at most {DOCUMENT_BYTES} are taken")
        return self._read_bytes(request)

    def _read_json(self, request: Request) -> dict[str, Any]:
        return _parse_object(self._read_text(request) or b"{}")

    def _answer_version(self, version: int) -> None:
        self._answer_json({"version": version}, {_VERSION: str(version)})

    def _answer_json(self, document: Mapping[str, object], headers: Mapping[str, str] | None = None) -> None:
        self._connection.answer(200, json.dumps(document).encode(), JSON, headers)


Handler = Callable[[Caller, Request], None]
_ROUTES: dict[str, dict[str, Handler]] = {
    "/": {"GET": Caller.tell},
    "/join": {"POST": Caller.join},
    "/leave": {"POST": Caller.leave},
    "/fail": {"POST": Caller.fail},
    "/all-reduce": {"POST": Caller.all_reduce},
    "/broadcast": {"POST": Caller.broadcast},
    "/all-gather": {"POST": Caller.all_gather},
    "/barrier": {"POST": Caller.barrier},
    "/metrics": {"POST": Caller.tell_metrics},
    "/values/": {"GET": Caller.get_value, "PUT": Caller.put_value, "POST": Caller.add_value},
    "/documents/": {"GET": Caller.get_document, "PUT": Caller.put_document},
}


def _find_route(request: Request) -> Handler:
    start, slash, _ = request.path[1:].partition("/")
    methods = _ROUTES.get(f"/{start}{slash}")
    if methods is None or (not slash and start in {"values", "documents"}):
        raise Refusal(404, f"there is nothing at {request.path[:200]!r}; there is {', '.join(_ROUTES)}")
    handler = methods.get(request.method)
    if handler is None:
        raise Refusal(405, f"{request.method} is not for {request.path[:200]!r}: {', '.join(methods)} is")
    return handler


def _take_fields(request: Request, allowed: Iterable[str]) -> Mapping[str, str]:
    unknown = sorted(set(request.query) - set(allowed))
    if unknown:
        raise ValueError(
            f"{unknown[0][:80]!r} is no field of {request.path[:200]}: {', '.join(allowed) or 'it has none'}"
        )
    return request.query


def _take_name(request: Request) -> str:
    name = request.path[1:].partition("/")[2]
    check_name(name)
    return name


def _take_dtype(fields: Mapping[str, str]) -> str:
    if "dtype" not in fields:
        raise ValueError(f"dtype is missing: one of {', '.join(DTYPES)}")
    check_dtype(fields["dtype"])
    return fields["dtype"]


def _take_number(fields: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    text = fields.get(name)
    if text is None:
        if otherwise is None:
            raise ValueError(f"{name} is missing")
        return otherwise
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} is {text[:40]!r}: a whole number, 0 or more, is wanted")
    return int(text)


def _take_seconds(fields: Mapping[str, str], name: str) -> float:
    text = fields.get(name, "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise ValueError(f"{name} is {text[:40]!r}: a number of seconds from 0 to {LONGEST_WAIT_S:g} is wanted")
    return seconds


def _take(asked: Mapping[str, Any], name: str, kind: type, otherwise: Any) -> Any:
    value = asked.get(name, otherwise)
    if type(value) is not kind:  # not isinstance: True is no number here
        raise ValueError(f"{name} is {json.dumps(value)[:80]}: {_KINDS[kind]} is wanted")
    return value


_KINDS = {int: "a whole number", bool: "true or false", str: "text", dict: "an object"}


def _take_metric_name(name: str) -> str:
    if not _METRIC_NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no name of a metric: 1 to 255 characters, no space around them")
    return name


def _take_metric(name: str, value: object) -> float:
    """A number, or the words for those that JSON does not have."""
    if type(value) in {int, float} or value in ("NaN", "Infinity", "-Infinity"):
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:
            pass
    raise ValueError(f'{name} is {json.dumps(value)[:80]}: a number is wanted, or "NaN", "Infinity", "-Infinity"')


def _parse_object(text: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(parsed, dict):
        raise ValueError('the body is JSON, but no object: {"name": value, …} is wanted')  # noqa: TRY004 - a 400 as well
    return parsed


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _write_failure(failure: Failure) -> dict[str, object]:
    return {"error": failure.message, "rank": failure.rank}
