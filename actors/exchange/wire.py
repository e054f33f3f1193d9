"""HTTP/1.1 as far as the exchange speaks it: heads, bodies into given memory, answers.

It knows no route and no rank. Everything that comes is bounded: a head in bytes, a body in bytes, and both in time.
"""

from __future__ import annotations

import contextlib
import http
import json
import re
import select
import socket
import struct
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

OCTETS = "application/octet-stream"
JSON = "application/json"
_HEAD_END = b"\r\n\r\n"
_READ_BYTES = 16 * 1024
_BUFFER_BYTES = 4 * 1024 * 1024
_WASTE_BYTES = 1024 * 1024
_PARTING_S = 2.0
_PEER = struct.Struct("3i")
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
_HEADER_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Limits:
    """How much a caller may send, and how long it may take. `receive_s` is for one whole request, or one answer."""

    head_bytes: int = 16 * 1024
    body_bytes: int = 1024**3
    receive_s: float = 60.0
    connection_count: int = 32
    """Open connections per socket."""


class Refusal(Exception):
    """A request that gets an error as its answer. With `ends`, nothing after it can be understood."""

    def __init__(self, status: int, message: str, rank: int | None = None, *, ends: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.rank = rank
        self.ends = ends


class HungUp(Exception):
    """The caller has closed its connection."""


@dataclass(frozen=True)
class Request:
    """A request's head. Names of headers are in lower case; `length` is its body's, in bytes."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int = 0
    stays: bool = True
    """Whether the caller keeps the connection for more requests."""


def parse_head(head: bytes) -> Request:
    """Read a request's head, without the empty line after it. Raises Refusal."""
    first, *lines = head.decode("latin-1").split("\r\n")
    matched = _REQUEST_LINE.fullmatch(first)
    if not matched:
        raise Refusal(400, f"not a request line of HTTP/1.1: {first[:80]!r}", ends=True)
    method, target, minor = matched.groups()
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER_LINE.fullmatch(line)
        if not header:
            raise Refusal(400, f"not a header: {line[:80]!r}", ends=True)
        name, value = header[1].lower(), header[2].rstrip()
        if name == "content-length" and headers.get(name, value) != value:
            raise Refusal(400, "two different headers Content-Length", ends=True)
        headers[name] = value
    path, _, query = target.partition("?")
    keeps = headers.get("connection", "").lower()
    stays = keeps == "keep-alive" if minor == "0" else keeps != "close"
    return Request(method, urllib.parse.unquote(path), _parse_query(query), headers, _body_length(headers), stays)


def _parse_query(text: str) -> dict[str, str]:
    try:
        pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, max_num_fields=16)
    except ValueError as error:
        raise Refusal(400, f"the query is no query: {error}", ends=True) from None
    query = dict(pairs)
    if len(query) < len(pairs):
        raise Refusal(400, "the query names a field twice", ends=True)
    return query


def _body_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        message = "bodies in chunks (Transfer-Encoding) are not taken: send the body's size as Content-Length"
        raise Refusal(411, message, ends=True)
    text = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(text):
        raise Refusal(400, f"Content-Length is not a number of bytes: {text[:40]!r}", ends=True)
    return int(text)


class Connection:
    """One caller's connection, the hub's side of it. Its own thread uses it; others may only interrupt it."""

    def __init__(self, opened: socket.socket, limits: Limits) -> None:
        self._socket = opened
        self._limits = limits
        self._held = bytearray()
        self._unread_bytes = 0
        self._awaits_word = False
        self._deadline = 0.0
        self._poll = select.poll()
        self._poll.register(opened, 0)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)

    @property
    def process(self) -> int:
        """The process at the other end, by its number on this machine; 0 where this machine does not know it."""
        return int(_PEER.unpack(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0])

    def has_hung_up(self) -> bool:
        """Tell whether the other end has closed, without waiting."""
        return bool(self._poll.poll(0))

    def interrupt(self, *, also_answers: bool = False) -> None:
        """From another thread, end a read that waits, and all later ones; with `also_answers` writes too."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR if also_answers else socket.SHUT_RD)

    def converse(self, answer: Callable[[Request], None]) -> None:
        """Have each request answered, one after another, until the caller hangs up or cannot be understood."""
        stays = True
        try:
            while stays:
                try:
                    request = self._receive()
                    stays = request.stays
                    answer(request)
                except Refusal as refusal:
                    stays = stays and not refusal.ends and not self._awaits_word
                    self._refuse(refusal, stays=stays)
                stays = stays and not self._awaits_word  # it may send the body that it was not asked for, or not
                if stays:
                    self._discard(self._unread_bytes)
            self._part()
        except (HungUp, Refusal, OSError):
            return

    def read(self, into: memoryview) -> None:
        """Fill `into`, which is no longer than what is left of the body. Raises Refusal when it is late, HungUp."""
        if self._awaits_word:
            self._awaits_word = False
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        done = min(len(self._held), len(into))
        into[:done] = self._held[:done]
        del self._held[:done]
        self._unread_bytes -= done
        try:
            while done < len(into):
                self._socket.settimeout(self._time_left_s())
                received = self._socket.recv_into(into[done:])
                if not received:
                    raise HungUp
                done += received
                self._unread_bytes -= received
        except TimeoutError:
            message = f"{self._unread_bytes} bytes of the body did not come within {self._limits.receive_s:g} s"
            raise Refusal(408, message, ends=True) from None

    def answer(
        self,
        status: int,
        body: bytes | memoryview = b"",
        content_type: str = OCTETS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send an answer. Raises OSError when the caller does not take it, or not in time."""
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
        lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self._socket.settimeout(self._limits.receive_s)
        sent = self._socket.sendmsg([head, body])
        if sent < len(head):
            self._socket.sendall(head[sent:])
        if sent < len(head) + len(body):
            self._socket.sendall(memoryview(body)[max(0, sent - len(head)) :])

    def turn_away(self, refusal: Refusal) -> None:
        """Answer before anything was asked, and hang up."""
        with contextlib.suppress(OSError):
            self._refuse(refusal, stays=False)
            self._part()

    def _refuse(self, refusal: Refusal, *, stays: bool) -> None:
        body = json.dumps({"error": refusal.message, "rank": refusal.rank}).encode()
        self.answer(refusal.status, body, JSON, None if stays else {"Connection": "close"})

    def _receive(self) -> Request:
        head = self._receive_head()
        request = parse_head(head)
        self._unread_bytes = request.length
        self._awaits_word = request.headers.get("expect", "").lower() == "100-continue" and request.length > 0
        if request.length > self._limits.body_bytes:
            most = self._limits.body_bytes
            raise Refusal(413, f"a body of {request.length} bytes is too large: at most {most} bytes are taken")
        return request

    def _receive_head(self) -> bytes:
        limits = self._limits
        if not self._held:
            self._socket.settimeout(None)
            self._take_in()
        self._deadline = time.monotonic() + limits.receive_s
        try:
            while (end := self._held.find(_HEAD_END, 0, limits.head_bytes)) < 0:
                if len(self._held) >= limits.head_bytes:
                    raise Refusal(431, f"the request's head is longer than {limits.head_bytes} bytes", ends=True)
                self._socket.settimeout(self._time_left_s())
                self._take_in()
        except TimeoutError:
            raise Refusal(408, f"the request's head did not come within {limits.receive_s:g} s", ends=True) from None
        head = bytes(self._held[:end])
        del self._held[: end + len(_HEAD_END)]
        return head

    def _take_in(self) -> None:
        received = self._socket.recv(_READ_BYTES)
        if not received:
            raise HungUp
        self._held += received

    def _time_left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _discard(self, length: int) -> None:
        """Read what nobody wanted, so that the next request can be told from it."""
        waste = memoryview(bytearray(min(length, _WASTE_BYTES)))
        while length:
            piece = waste[:length]
            self.read(piece)
            length -= len(piece)

    def _part(self) -> None:
        """End the conversation so that a caller who is still sending can read its answer: a reset would lose it."""
        self._socket.shutdown(socket.SHUT_WR)
        self._held.clear()
        self._deadline = time.monotonic() + _PARTING_S
        while True:
            self._socket.settimeout(self._time_left_s())
            if not self._socket.recv(_WASTE_BYTES):
                return
