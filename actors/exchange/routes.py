"""What a rank can ask over its socket: requests become calls of the session, and what comes of them answers.

The documented wire (docs/exchange.md) in code. Who waits for whom is session.py's, bytes on sockets are wire.py's.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from raymaker.actors.exchange.changes import Changes
from raymaker.actors.exchange.fields import (
    parse_object,
    take,
    take_dtype,
    take_fields,
    take_metrics,
    take_name,
    take_number,
    take_seconds,
)
from raymaker.actors.exchange.reduce import Room, as_elements, check_operation, count_elements, see_bytes
from raymaker.actors.exchange.rendezvous import Cause, Conflict, Member
from raymaker.actors.exchange.seam import DTYPES, Call, Failure, Value
from raymaker.actors.exchange.session import Ended, Session
from raymaker.actors.exchange.values import TooLarge
from raymaker.actors.exchange.wire import JSON, OCTETS, Connection, Limits, Refusal, Request

DOCUMENT_BYTES = 64 * 1024
_LOOK_S = 1.0
"""How often who waits for a change looks whether its own caller is still there."""
_MESSAGE_LENGTH = 4096
_STATUS = {Cause.DISAGREEMENT: 409, Cause.GONE: 410, Cause.LATE: 504}
_VERSION = "X-Value-Version"
_CONTENT_TYPE = re.compile(r"[!-~][ -~]{0,199}")

OnMetrics = Callable[[int, Mapping[str, float], int | None], None]
"""Takes a rank, its numbers by name, and its own count of steps where it says one."""


class Caller:
    """One connection of one rank."""

    def __init__(
        self,
        session: Session,
        rank: int,
        connection: Connection,
        limits: Limits,
        *,
        on_metrics: OnMetrics,
        changes: Changes,
    ) -> None:
        self._session = session
        self._rank = rank
        self._connection = connection
        self._limits = limits
        self._on_metrics = on_metrics
        self._changes = changes
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
        take_fields(request, ())
        self._answer_json(self._describe())

    def join(self, request: Request) -> None:
        """POST /join: this connection is the rank's life line from now on."""
        take_fields(request, ())
        asked = self._read_json(request)
        member = Member(
            pid=take(asked, "pid", int, self._process),
            process=self._process,
            arena=take(asked, "arena", bool, False),
            numpy=take(asked, "numpy", bool, False),
        )
        self._session.join(self._rank, member)
        self._has_joined = True
        mode = self._session.await_mode(self._rank, self._connection.has_hung_up)
        self._answer_json({**asdict(mode), **self._describe()})

    def leave(self, request: Request) -> None:
        """POST /leave: this rank makes no more calls."""
        take_fields(request, ())
        self._session.leave(self._rank)
        self._answer_json({})

    def fail(self, request: Request) -> None:
        """POST /fail: nobody can go on; the answer is the first reason of all."""
        take_fields(request, ())
        asked = self._read_json(request)
        message, rank = take(asked, "message", str, ""), asked.get("rank")
        if not message:
            raise ValueError("message is missing: say why nobody can go on")
        if rank is not None and (type(rank) is not int or not 0 <= rank < self._session.place.world_size):
            raise ValueError(f"rank is none of 0 to {self._session.place.world_size - 1}, and not null")
        self._answer_json(_write_failure(self._session.fail(Failure(message[:_MESSAGE_LENGTH], rank))))

    def tell_metrics(self, request: Request) -> None:
        """POST /metrics: numbers of this rank. Any process may tell them, and nobody waits for them."""
        take_fields(request, ())
        values, step = take_metrics(self._read_json(request))
        self._on_metrics(self._rank, values, step)
        self._answer_json({})

    def get_changes(self, request: Request) -> None:
        """GET /changes?since=&wait_s=: how the job is to go on. Any process may ask, and nobody waits for it."""
        fields = take_fields(request, ("since", "wait_s"))
        since, wait_s = take_number(fields, "since", 0), take_seconds(fields, "wait_s")
        deadline = time.monotonic() + wait_s
        while not self._changes.wait(self._rank, since, min(max(deadline - time.monotonic(), 0.0), _LOOK_S)):
            if time.monotonic() >= deadline or self._connection.has_hung_up():
                break
        found = None if self._connection.has_hung_up() else self._changes.take(self._rank, since)
        if found is None:
            raise Refusal(404, f"nothing has changed since revision {since}")
        self._answer_json(
            {
                "revision": found.number,
                "hyperparameters": dict(found.hyperparameters),
                "hyperparameters_revision": found.hyperparameters_number,
                "code": found.code,
                "code_revision": found.code_number,
            }
        )

    def all_reduce(self, request: Request) -> None:
        """POST /all-reduce?op=&dtype=."""
        fields = take_fields(request, ("op", "dtype"))
        dtype, operation = take_dtype(fields), fields.get("op", "sum")
        check_operation(operation, dtype)
        self._collect(request, Call("all-reduce", dtype, count_elements(request.length, dtype), operation))

    def broadcast(self, request: Request) -> None:
        """POST /broadcast?root=&dtype=&count=: only the root's body is looked at; others may give its count instead."""
        fields = take_fields(request, ("root", "dtype", "count"))
        dtype, root = take_dtype(fields), take_number(fields, "root")
        if root >= self._session.place.world_size:
            raise ValueError(f"root {root} is no rank of this job: it has {self._session.place.world_size}")
        count = count_elements(request.length, dtype)
        if "count" in fields:
            expected = take_number(fields, "count")
            if (request.length or self._rank == root) and expected != count:
                raise ValueError(f"count is {expected}, but the body has {count} {dtype}")
            count = expected
        elif not request.length and self._rank != root:
            raise ValueError(f"count is missing: say how many {dtype} rank {root} sends, or send a body of that length")
        self._check_size(count * DTYPES[dtype])
        self._collect(request, Call("broadcast", dtype, count, root=root))

    def all_gather(self, request: Request) -> None:
        """POST /all-gather?dtype=."""
        dtype = take_dtype(take_fields(request, ("dtype",)))
        self._check_size(request.length * self._session.place.world_size)
        self._collect(request, Call("all-gather", dtype, count_elements(request.length, dtype)))

    def barrier(self, request: Request) -> None:
        """POST /barrier."""
        take_fields(request, ())
        if request.length:
            raise ValueError("a barrier has no body")
        self._collect(request, Call("barrier"))

    def put_value(self, request: Request) -> None:
        """PUT /values/<name>."""
        take_fields(request, ())
        name, content_type = take_name(request), request.headers.get("content-type", OCTETS)
        if not _CONTENT_TYPE.fullmatch(content_type):
            raise ValueError("Content-Type is longer than 200 characters, or not of ASCII")
        self._answer_version(self._session.put_value(self._rank, name, self._read_bytes(request), content_type))

    def add_value(self, request: Request) -> None:
        """POST /values/<name>?add&dtype=."""
        fields = take_fields(request, ("add", "dtype"))
        if "add" not in fields:
            raise ValueError("add is missing: POST /values/<name>?add&dtype=… adds to a value, PUT replaces it")
        name, dtype = take_name(request), take_dtype(fields)
        count_elements(request.length, dtype)
        self._answer_version(self._session.add_value(self._rank, name, self._read_bytes(request), dtype))

    def get_value(self, request: Request) -> None:
        """GET /values/<name>?after=&wait_s=."""
        value = self._find_value(request)
        self._connection.answer(200, value.content, value.content_type, {_VERSION: str(value.version)})

    def put_document(self, request: Request) -> None:
        """PUT /documents/<name>: a small JSON object."""
        take_fields(request, ())
        name = take_name(request)
        text = self._read_text(request)
        parse_object(text)
        self._answer_version(self._session.put_value(self._rank, name, text, JSON))

    def get_document(self, request: Request) -> None:
        """GET /documents/<name>?after=&wait_s=."""
        value = self._find_value(request)
        if value.content_type.partition(";")[0].strip().lower() != JSON:
            raise Refusal(404, f"{take_name(request)} is a value of {value.content_type}, not a document")
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
        fields, name = take_fields(request, ("after", "wait_s")), take_name(request)
        after, wait_s = take_number(fields, "after", 0), take_seconds(fields, "wait_s")
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
            "revision": self._changes.started_number,
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
        return parse_object(self._read_text(request) or b"{}")

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
    "/changes": {"GET": Caller.get_changes},
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


def _write_failure(failure: Failure) -> dict[str, object]:
    return {"error": failure.message, "rank": failure.rank}
