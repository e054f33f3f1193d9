"""A gate before a server: passes on what HTTP clients and the server say, byte for byte, and hurts them on demand.

A held request has not reached the server: whoever sent it waits, and where its connection dies the server never hears
of it. A spoilt answer ends, or comes to a halt, after so many bytes. Only requests are read, to know where one ends;
answers pass unread.
"""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from support.faults import eventually

PIECE_BYTES = 64 * 1024
LOOK_MS = 100
HELD_TIMEOUT_S = 90.0
GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


@dataclass(eq=False)
class Hold:
    """Requests that do not pass for now: those with this method, or any where it is None, and this in their path."""

    method: str | None
    path_part: str
    released: threading.Event = field(default_factory=threading.Event)
    held: list[str] = field(default_factory=list)
    """The requests that are held at this moment, as `METHOD /path`."""

    def concerns(self, method: str, path: str) -> bool:
        """Tell whether a request is to be held."""
        return self.method in (None, method) and self.path_part in path

    def wait_until_held(self, count: int = 1) -> list[str]:
        """Wait until that many requests are held, and return them."""
        what = f"the gate holds {count} of {self.method or 'any'} …{self.path_part}…"
        return eventually(lambda: list(self.held) if len(self.held) >= count else [], what, HELD_TIMEOUT_S)


@dataclass(eq=False)
class Flaw:
    """Answers that do not pass whole: to the next `left_count` GETs with this in their path."""

    path_part: str
    after_bytes: int
    is_halt: bool
    """Whether the connection stays open and silent; else it is cut."""
    left_count: int
    spoilt: list[str] = field(default_factory=list)
    """The requests whose answers were spoilt."""


class Gate:
    """The gate before one server, at an http or a unix URL. `endpoint_url` is what clients use in place of its own."""

    def __init__(self, server_url: str) -> None:
        self._holds: list[Hold] = []
        self._flaws: list[Flaw] = []
        self._counting = threading.Lock()
        self._door = _Door(("127.0.0.1", 0), _passage(self, server_url))
        self.endpoint_url = f"http://127.0.0.1:{self._door.server_address[1]}"
        self._thread = threading.Thread(target=self._door.serve_forever, name="gate", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def hold(self, method: str | None, path_part: str) -> Iterator[Hold]:
        """Hold requests until the end of the block, when they go on."""
        hold = Hold(method, path_part)
        self._holds.append(hold)
        try:
            yield hold
        finally:
            self._holds.remove(hold)
            hold.released.set()

    @contextlib.contextmanager
    def spoil(self, path_part: str, *, after_bytes: int, count: int = 1, is_halt: bool = False) -> Iterator[Flaw]:
        """Cut or halt the answers to the next `count` GETs, until the end of the block."""
        flaw = Flaw(path_part, after_bytes, is_halt, count)
        self._flaws.append(flaw)
        try:
            yield flaw
        finally:
            self._flaws.remove(flaw)

    def find_flaw(self, method: str, path: str) -> Flaw | None:
        """Return what is to spoil the answer to this request, None where nothing is."""
        with self._counting:
            for flaw in self._flaws:
                if method == "GET" and flaw.path_part in path and flaw.left_count:
                    flaw.left_count -= 1
                    flaw.spoilt.append(f"{method} {path}")
                    return flaw
        return None

    def wait_to_pass(self, method: str, path: str, client: socket.socket) -> bool:
        """Return once a request may go on; False where its connection has died meanwhile."""
        for hold in [it for it in self._holds if it.concerns(method, path)]:
            request = f"{method} {path}"
            hold.held.append(request)
            try:
                while not hold.released.wait(LOOK_MS / 1000):
                    if _is_gone(client):
                        return False
            finally:
                hold.held.remove(request)
        return True

    def close(self) -> None:
        """Take no more clients, and hang up on those there are."""
        self._door.shutdown()
        self._door.server_close()
        self._thread.join()


class _Door(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _reach(server_url: str) -> socket.socket:
    """Connect to a server, by TCP or by a socket of this machine (`unix:///path`)."""
    url = urlsplit(server_url)
    if url.scheme != "unix":
        return socket.create_connection((url.hostname or "", url.port or 80))
    inner = socket.socket(socket.AF_UNIX)
    inner.connect(url.path)
    return inner


def _passage(gate: Gate, server_url: str) -> type[socketserver.StreamRequestHandler]:
    """Make what handles one client's connection: one to the server, and what is said on either passed to the other."""

    class Passage(socketserver.StreamRequestHandler):
        flaw: Flaw | None = None

        def handle(self) -> None:
            with contextlib.suppress(OSError), _reach(server_url) as inner:
                answers = threading.Thread(
                    target=_pass_answers, args=(inner, self.connection, lambda: self.flaw), daemon=True
                )
                answers.start()
                ending = socket.SHUT_RDWR
                try:
                    if self._pass_requests(inner):
                        ending = socket.SHUT_WR  # the last answer may still be to come
                finally:
                    with contextlib.suppress(OSError):  # the server may have ended first
                        inner.shutdown(ending)
                    answers.join()

        def _pass_requests(self, inner: socket.socket) -> bool:
            """Pass on requests until the client makes no more; False where it died with one that was held."""
            while head := _read_head(self.rfile):
                method, target, _ = head[0].decode("latin-1").split(" ", 2)
                if not gate.wait_to_pass(method, unquote(target), self.connection):
                    return False
                self.flaw = gate.find_flaw(method, unquote(target))
                inner.sendall(b"".join(head))
                for piece in _body(self.rfile, head):
                    inner.sendall(piece)
            return True

    return Passage


def _pass_answers(inner: socket.socket, client: socket.socket, flaw_now: Callable[[], Flaw | None]) -> None:
    """Pass on what the server says, as far as no flaw keeps it from that, and its silence at the end."""
    passed_bytes = 0
    with contextlib.suppress(OSError):
        while piece := inner.recv(PIECE_BYTES):
            if (flaw := flaw_now()) is None:
                client.sendall(piece)
                continue
            client.sendall(piece[: max(0, flaw.after_bytes - passed_bytes)])
            passed_bytes += len(piece)
            if passed_bytes > flaw.after_bytes:
                while flaw.is_halt and not _is_gone(client):
                    time.sleep(LOOK_MS / 1000)
                break
        client.shutdown(socket.SHUT_RDWR)


def _read_head(client: BinaryIO) -> list[bytes]:
    """Read a request's lines up to the empty one; nothing where the client has ended."""
    lines: list[bytes] = []
    while line := client.readline():
        lines.append(line)
        if line == b"\r\n":
            return lines
    return []


def _body(client: BinaryIO, head: list[bytes]) -> Iterator[bytes]:
    """Yield a request's body as it comes, chunks with their framing."""
    fields = dict(line.decode("latin-1").lower().partition(":")[::2] for line in head[1:-1])
    if "chunked" not in fields.get("transfer-encoding", ""):
        yield from _exactly(client, int(fields.get("content-length", "0")))
        return
    size = 1
    while size:
        line = client.readline()
        yield line
        size = int(line.partition(b";")[0], 16)
        if size:
            yield from _exactly(client, size + len(b"\r\n"))
    while (line := client.readline()) not in (b"\r\n", b""):
        yield line  # trailers
    yield line


def _exactly(client: BinaryIO, count: int) -> Iterator[bytes]:
    while count:
        piece = client.read1(min(count, PIECE_BYTES))  # type: ignore[attr-defined]  # as socketserver's files have it
        if not piece:
            raise ConnectionError("the client ended in the middle of a body")
        count -= len(piece)
        yield piece


def _is_gone(client: socket.socket) -> bool:
    """Tell whether the other side has hung up, though bytes of it may be there unread."""
    poller = select.poll()
    poller.register(client, GONE)
    return bool(poller.poll(0))
