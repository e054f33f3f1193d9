"""A rank's line to its hub, over a Unix socket: requests, named values, and collectives where there is no arena.

What can be asked is in docs/exchange.md.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import urllib.parse
import weakref
from typing import Any, NamedTuple, NoReturn

from .calls import DTYPES
from .errors import ExchangeError, Mismatch, RankLost, Stalled

OCTETS = "application/octet-stream"
JSON = "application/json"
_OK, _BAD, _NOT_FOUND, _TOO_LARGE = 200, 400, 404, 413
_ERRORS = {409: Mismatch, 410: RankLost, 504: Stalled}
_PATIENCE_S = 60.0
"""How much longer than it was asked to wait the hub may take for an answer."""
_LONGEST_ADDRESS = 100
_BUFFER_BYTES = 4 * 1024 * 1024
"""What the system may hold of what is sent, where it allows so much: each time that it is full costs two wake-ups."""


class Value(NamedTuple):
    """A named value as it was pulled. `version` counts its changes from 1."""

    version: int
    content: bytes


class Hub:
    """The hub, as this rank's process sees it. Threads may share it; collective calls take turns."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "exchange.sock")  # noqa: PTH118 - importing pathlib costs every start
        self._life: _Connection | None = None
        self._idle: list[_Connection] = []

    def join(self, *, arena: bool, numpy: bool, timeout_s: float | None) -> dict[str, Any]:
        """Be a rank until leave(), or until this process ends: the hub sees its connection close. Raises ExchangeError.

        The answer comes when all ranks of this machine are there.
        """
        self._life = _Connection(self._path, timeout_s)
        document = json.dumps({"pid": os.getpid(), "arena": arena, "numpy": numpy})
        try:
            answer = _ask(self._life, "POST", "/join", document.encode(), JSON)
        except OSError as error:
            if isinstance(error, socket.timeout):
                raise Stalled(f"not all ranks came to join the exchange within {timeout_s:g} s") from None
            raise _no_hub(self._path, error) from error
        if answer.status != _OK:
            _raise(answer)
        self._life.sock.setblocking(False)
        _JOINED.add(self)
        return dict(json.loads(answer.content))

    def alive(self) -> bool:
        """Whether the hub is there."""
        return self._life is not None and _is_open(self._life.sock)

    def failure(self) -> tuple[str, int | None] | None:
        """The first failure of the job, with the rank to blame; None while there is none, or no hub."""
        try:
            told = json.loads(self._request("GET", "/").content)["failure"]
            return (told["error"], told["rank"]) if told else None
        except (ExchangeError, ValueError, KeyError):
            return None

    def tell_failure(self, message: str, rank: int | None) -> tuple[str, int | None]:
        """Report a failure; returns the first one of all, which is this one where there is no hub."""
        document = json.dumps({"message": message, "rank": rank})
        try:
            told = json.loads(self._request("POST", "/fail", document.encode(), JSON).content)
            return told["error"], told["rank"]
        except (ExchangeError, ValueError, KeyError):
            return message, rank

    def leave(self) -> None:
        """Make no more calls."""
        with contextlib.suppress(ExchangeError):
            self._request("POST", "/leave")
        self.close()

    def close(self) -> None:
        """Hang up. Without leave() before, that is this rank's death."""
        _JOINED.discard(self)
        if self._life is not None:
            self._life.close()
        self._life = None
        while self._idle:
            self._idle.pop().close()

    def put(self, room: str, name: str, content: memoryview) -> int:
        """Replace one of the job's values or documents; returns its version. Raises ExchangeError, ValueError."""
        content_type = JSON if room == "documents" else OCTETS
        return _version(self._request("PUT", f"/{room}/{_quote(name)}", content, content_type))

    def add(self, name: str, content: memoryview, dtype: str) -> int:
        """Add an array to a value; returns its version. Raises ExchangeError, ValueError."""
        return _version(self._request("POST", f"/values/{_quote(name)}?add&dtype={dtype}", content))

    def get(self, room: str, name: str, after: int, wait_s: float) -> Value | None:
        """Read a value or document newer than `after`, waiting for it; None where there is none."""
        path = f"/{room}/{_quote(name)}?after={after}&wait_s={wait_s}"
        answer = self._request("GET", path, wait_s=wait_s)
        return Value(answer.version, answer.content) if answer.status == _OK else None

    def tell(self, document: dict[str, Any]) -> None:
        """Tell numbers of this rank. Raises ExchangeError, ValueError."""
        self._request("POST", "/metrics", json.dumps(document).encode(), JSON)

    def changes(self, since: int, wait_s: float) -> dict[str, Any] | None:
        """What has changed after a revision, waiting for it; None where nothing has, or no hub answers just now."""
        try:
            answer = self._request("GET", f"/changes?since={since}&wait_s={wait_s}", wait_s=wait_s)
        except RankLost:  # a hub whose process died comes back
            return None
        return dict(json.loads(answer.content)) if answer.status == _OK else None

    def collect(self, path: str, data: memoryview, into: memoryview) -> None:
        """Make a collective call: bytes go, bytes come into `into`. However long it takes: the hub has the deadline."""
        with self._connection(None) as connection:
            connection.request("POST", path, data, _headers(data, OCTETS))
            response = connection.getresponse()
            if response.status == _OK and response.length == len(into):
                _read_into(response, into)
                return
            answer = _Answer(response.status, 0, response.read())
        _raise(answer)

    def _request(
        self, method: str, path: str, body: bytes | memoryview = b"", content_type: str = OCTETS, wait_s: float = 0.0
    ) -> _Answer:
        """Raises ExchangeError (its kind by status), ValueError for what the hub cannot take; 404 is an answer."""
        with self._connection(wait_s + _PATIENCE_S) as connection:
            answer = _ask(connection, method, path, body, content_type)
        if answer.status not in (_OK, _NOT_FOUND):
            _raise(answer)
        return answer

    @contextlib.contextmanager
    def _connection(self, timeout_s: float | None) -> Any:
        """Lend an idle connection, or a new one. After an error, an interrupt too, it is closed: the hub sees that."""
        connection = self._take_idle() or _Connection(self._path, timeout_s)
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            yield connection
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _no_hub(self._path, error) from error
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)  # where the hub has ended the conversation it connects again

    def _take_idle(self) -> _Connection | None:
        """A connection that is still open: those to a hub that died are of no use once it is back."""
        while self._idle:
            connection = self._idle.pop()
            if connection.sock is None or _is_open(connection.sock):
                return connection
            connection.close()
        return None


class SocketRank:
    """One rank's side of collectives through the hub's socket."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self._hub.collect("/barrier", memoryview(b""), memoryview(b""))

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine the bytes `data` of all ranks, in place."""
        self._hub.collect(f"/all-reduce?op={operation}&dtype={dtype}", data, data)

    def broadcast(self, data: memoryview, dtype: str, root: int) -> None:
        """Copy the root's bytes to `data` of every other rank."""
        self._hub.collect(f"/broadcast?root={root}&dtype={dtype}&count={len(data) // DTYPES[dtype]}", data, data)

    def all_gather(self, data: memoryview, dtype: str, into: memoryview) -> None:
        """Collect the bytes of all ranks, in rank order: `into` is world-size times as long as `data`."""
        self._hub.collect(f"/all-gather?dtype={dtype}", data, into)

    def allocate(self, byte_count: int) -> memoryview:
        """Memory of this process: there is no arena."""
        return memoryview(bytearray(byte_count))

    def abandon(self, message: str, rank: int) -> None:
        """Let no rank go on: this one cannot."""
        self._hub.tell_failure(message, rank)

    def close(self) -> None:
        """There is nothing to let go of."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost")
        self._path, self._timeout_s = path, timeout_s

    def connect(self) -> None:
        """Connect at a path of any length: a socket's address holds 107 bytes only."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self.sock.settimeout(self._timeout_s)
        if len(self._path) <= _LONGEST_ADDRESS:
            self.sock.connect(self._path)
            return
        folder, _, name = self._path.rpartition("/")
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{descriptor}/{name}")
        finally:
            os.close(descriptor)


class _Answer(NamedTuple):
    status: int
    version: int
    content: bytes


def _ask(connection: _Connection, method: str, path: str, body: bytes | memoryview, content_type: str) -> _Answer:
    connection.request(method, path, body, _headers(body, content_type))
    response = connection.getresponse()
    return _Answer(response.status, int(response.headers.get("X-Value-Version", 0)), response.read())


def _is_open(sock: socket.socket) -> bool:
    """Whether the hub is there. It never speaks first, so all that comes by itself is its end."""
    timeout_s = sock.gettimeout()
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(timeout_s)


def _headers(body: bytes | memoryview, content_type: str) -> dict[str, str]:
    return {"Content-Length": str(len(body)), "Content-Type": content_type}


def _read_into(response: http.client.HTTPResponse, into: memoryview) -> None:
    done = 0
    while done < len(into):
        count = response.readinto(into[done:])
        if not count:
            raise ConnectionError("the hub hung up in the middle of an answer")
        done += count
    response.read()


def _version(answer: _Answer) -> int:
    if answer.status != _OK:
        _raise(answer)
    return answer.version


def _raise(answer: _Answer) -> NoReturn:
    try:
        told = json.loads(answer.content)
        message, rank = str(told["error"]), told.get("rank")
    except (ValueError, KeyError, AttributeError):
        message, rank = f"the hub answered {answer.status}", None
    if answer.status in (_BAD, _TOO_LARGE):
        raise ValueError(message)
    raise _ERRORS.get(answer.status, ExchangeError)(message, rank)


def _no_hub(path: str, error: Exception) -> RankLost:
    return RankLost(
        f"the exchange hub does not answer at {path}: it has ended, or this is no container of a job ({error})"
    )


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")


_JOINED: weakref.WeakSet[Hub] = weakref.WeakSet()


def _hang_up_in_child() -> None:
    """A forked child must not hold its parent's line open: the hub would not see the parent die."""
    for hub in list(_JOINED):
        hub.close()


os.register_at_fork(after_in_child=_hang_up_in_child)
