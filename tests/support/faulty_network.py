"""A network between a client and S3 that fails when it is told to."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from support.s3 import ObjectStore


class FaultyNetwork:
    """A proxy in front of S3 that fails when told to."""

    def __init__(self, endpoint_url: str) -> None:
        self._target = urlsplit(endpoint_url).netloc
        self.on_get: Callable[[], None] = lambda: None
        """Called before an object is read."""
        self._refusals: list[int] = []
        self._cuts = 0
        self._damages = 0
        self.requests: list[tuple[str, str | None]] = []
        network = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                network._handle(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"

    def refuse_next(self, count: int, status: int) -> None:
        """Answer the next requests with an error and nothing else."""
        self._refusals += [status] * count

    def cut_next_transfers(self, count: int) -> None:
        """Break off the next answers in the middle of their bodies."""
        self._cuts += count

    def damage_next_transfers(self, count: int) -> None:
        """Change a byte in the next answers."""
        self._damages += count

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append((request.command, request.headers.get("Range")))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self._refusals:
            request.send_response(self._refusals.pop(0))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if request.command == "GET" and request.headers.get("Range"):
            self.on_get()
        connection = http.client.HTTPConnection(self._target)
        connection.request(request.command, request.path, body, dict(request.headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                request.send_header(name, value)
        length = answer.headers.get("Content-Length") if request.command == "HEAD" else None
        request.send_header("Content-Length", length or str(len(content)))
        request.end_headers()
        if self._cuts and request.command == "GET" and len(content) > 1000:
            self._cuts -= 1
            request.wfile.write(content[: len(content) // 2])
            request.close_connection = True
            return
        if self._damages and request.command == "GET" and len(content) > 1000:
            self._damages -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        request.wfile.write(content)


@pytest.fixture
def network(s3: ObjectStore) -> Iterator[FaultyNetwork]:
    """A network before the session's object store."""
    between = FaultyNetwork(s3.endpoint_url)
    yield between
    between.close()
