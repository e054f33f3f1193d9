"""Ranges over plain HTTP, from servers that behave in every way that matters to who reads from the socket itself."""

from __future__ import annotations

import contextlib
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import IncompleteReadError, ReadTimeoutError

from raymaker.actors.plain_http import PlainReader

CONTENT = bytes(range(256)) * 40_000
SILENCE_S = 0.5

Serve = Callable[[socketserver.StreamRequestHandler, bytes, bytes], bool]
"""Sends the head and the body of one answer; False where that is the connection's last."""


class Server(socketserver.ThreadingTCPServer):
    """Answers ranges of CONTENT as `serve` sends them; counts connections."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, serve: Serve, extra: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.serve_answer = serve
        self.extra = extra
        self.connections_count = 0


class _Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.connections_count += 1
        while asked := self._read_head():
            found = re.search(rb"Range: bytes=(\d+)-(\d+)", asked)
            assert found is not None
            start, last = int(found[1]), int(found[2])
            body = CONTENT[start : last + 1]
            facts = b"Content-Length: %d\r\nETag: v\r\nContent-Range: bytes %d-%d/%d" % (
                len(body), start, last, len(CONTENT),
            )  # fmt: skip
            head = b"HTTP/1.1 206 Partial Content\r\n" + facts + b"\r\n" + self.server.extra + b"\r\n"
            if not self.server.serve_answer(self, head, body):
                return

    def _read_head(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line)
        return b"".join(lines)


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Server, PlainReader]]]:
    """Starts a server, and makes what reads from it."""
    servers: list[Server] = []

    def make(serve: Serve, extra: bytes = b"") -> tuple[Server, PlainReader]:
        servers.append(server := Server(serve, extra))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        return server, PlainReader(url, lambda path: f"{url}/{path}?signed=1", connect_timeout_s=5, silence_s=SILENCE_S)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def read_to(found: bytearray, reader: PlainReader, first: int, stop: int, piece: int) -> None:
    """Read a range in pieces; what came before an error is in `found`."""
    body = reader.open("bucket/key", first, stop, None)
    assert body is not None
    buffer = bytearray(piece)
    with contextlib.closing(body):
        while count := body.readinto(memoryview(buffer)):
            found += buffer[:count]


def read(reader: PlainReader, first: int, stop: int, piece: int) -> bytes:
    """Read a range in pieces."""
    found = bytearray()
    read_to(found, reader, first, stop, piece)
    return bytes(found)


def at_once(handler: socketserver.StreamRequestHandler, head: bytes, body: bytes) -> bool:
    handler.wfile.write(head + body)
    return True


def head_first(handler: socketserver.StreamRequestHandler, head: bytes, body: bytes) -> bool:
    handler.wfile.write(head)
    time.sleep(0.05)
    handler.wfile.write(body)
    return True


def in_drops(handler: socketserver.StreamRequestHandler, head: bytes, body: bytes) -> bool:
    handler.wfile.write(head + body[:10])
    for start in range(10, len(body), 100_000):
        time.sleep(0.01)
        handler.wfile.write(body[start : start + 100_000])
    return True


@pytest.mark.parametrize("serve", [at_once, head_first, in_drops])
@pytest.mark.parametrize("piece", [7_777, 65_536, 3_000_000])
def test_every_byte_comes_whatever_the_pieces_and_the_connection_is_kept(
    start: Callable[..., tuple[Server, PlainReader]], serve: Serve, piece: int
) -> None:
    server, reader = start(serve)
    ranges = [(0, 1_000_000), (1_000_000, 1_000_001), (1_000_001, 3_000_000)]
    assert [read(reader, *each, piece) for each in ranges] == [CONTENT[first:stop] for first, stop in ranges]
    assert server.connections_count == 1


def test_a_server_that_closes_after_each_answer_is_read_too(start: Callable[..., tuple[Server, PlainReader]]) -> None:
    def once(handler: socketserver.StreamRequestHandler, head: bytes, body: bytes) -> bool:
        at_once(handler, head, body)
        return False

    server, reader = start(once, b"Connection: close\r\n")
    assert [read(reader, 0, 500_000, 65_536) for _ in range(2)] == [CONTENT[:500_000]] * 2
    assert server.connections_count == 2


@pytest.mark.parametrize("sent_bytes", [0, 20, 300_000])
def test_a_server_that_falls_silent_is_given_up_after_a_while(
    start: Callable[..., tuple[Server, PlainReader]], sent_bytes: int
) -> None:
    is_over = threading.Event()

    def stall(handler: socketserver.StreamRequestHandler, head: bytes, body: bytes) -> bool:
        handler.wfile.write(head + body[:sent_bytes])
        is_over.wait(30)
        return False

    _, reader = start(stall)
    found = bytearray()
    try:
        with pytest.raises(ReadTimeoutError):
            read_to(found, reader, 0, 1_000_000, 100_000)
    finally:
        is_over.set()
    assert found == CONTENT[:sent_bytes]


def test_an_answer_that_is_cut_is_told_and_its_connection_not_kept(
    start: Callable[..., tuple[Server, PlainReader]],
) -> None:
    cuts = iter([True, False])

    def cut(handler: socketserver.StreamRequestHandler, head: bytes, body: bytes) -> bool:
        if next(cuts):
            handler.wfile.write(head + body[:150_000])
            return False
        return at_once(handler, head, body)

    server, reader = start(cut)
    with pytest.raises(IncompleteReadError):
        read(reader, 0, 1_000_000, 65_536)
    assert read(reader, 0, 1_000_000, 65_536) == CONTENT[:1_000_000]
    assert server.connections_count == 2
