"""Answers of a store that is spoken to without TLS, read straight into the caller's memory.

urllib3, which botocore uses, hands every piece of a body through objects of its own and copies it once more; on plain
HTTP that is half of what reading costs. Here botocore still makes, signs and parses everything: only the sending of
what it has made is taken over, by the hook that it has for that.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

MOST_IDLE_COUNT = 16


def read_straight(client: Any, endpoint_url: str | None, connect_timeout_s: float, silence_s: float) -> None:
    """Have a botocore client read objects of an endpoint this way, where it is a plain one without a proxy."""
    where = urlsplit(endpoint_url or "")
    host = where.hostname or ""
    if where.scheme == "http" and (not urllib.request.getproxies() or urllib.request.proxy_bypass(host)):
        lines = Lines(where.netloc, connect_timeout_s, silence_s)
        client.meta.events.register("before-send.s3.GetObject", lines.send)


class Lines:
    """Connections to one server, kept for the next request. Threads may share them."""

    def __init__(self, place: str, connect_timeout_s: float, silence_s: float) -> None:
        self._place = place
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def send(self, request: Any, **_: Any) -> AWSResponse | None:
        """Send what botocore has made; None where it goes elsewhere, as after a redirection. Raises its own errors."""
        url = urlsplit(request.url)
        if (url.scheme, url.netloc) != ("http", self._place):
            return None
        target = f"{url.path}?{url.query}" if url.query else url.path
        headers = {name: _text(value) for name, value in request.headers.items()}
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            is_new = connection is None
            connection = connection or self._connect(request.url)
            try:
                connection.request(request.method, target, headers=headers)
                answer = connection.getresponse()
            except TimeoutError as error:
                connection.close()
                raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if is_new:
                    raise ConnectionClosedError(endpoint_url=request.url, request=request) from error
                continue  # the server had closed it meanwhile
            headers_told: Any = answer.headers
            return AWSResponse(request.url, answer.status, headers_told, Body(self, connection, answer, request.url))

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            if connection.sock is not None and len(self._idle) < MOST_IDLE_COUNT:
                self._idle.append(connection)
                return
        connection.close()

    def __del__(self) -> None:
        for connection in self._idle:
            connection.close()

    def _connect(self, url: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._place, timeout=self._connect_timeout_s)
        try:
            connection.connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=url, error=error) from error
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=url, error=error) from error
        connection.sock.settimeout(self._silence_s)
        return connection


class Body:
    """The body of one answer, with as much of urllib3's interface as botocore asks of one."""

    def __init__(
        self, lines: Lines, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, url: str
    ) -> None:
        self._lines = lines
        self._connection: http.client.HTTPConnection | None = connection
        self._answer = answer
        self._url = url

    def readinto(self, view: memoryview) -> int:
        """Fill some of `view` from the socket; 0 at the end. Raises botocore's errors."""
        with self._explained():
            count = self._answer.readinto(view)
        self._settle()
        return count

    def read(self, count: int | None = None) -> bytes:
        """Read so many bytes at most, or all. Raises botocore's errors."""
        with self._explained():
            data = self._answer.read(count)
        self._settle()
        return data

    def stream(self, _count: int | None = None) -> Iterator[bytes]:
        """Yield all of it: what botocore takes errors from."""
        yield self.read()

    def close(self) -> None:
        """Let go; a connection on which something is left to read is of no use to anybody else."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._answer.close()

    def _settle(self) -> None:
        """Give the connection back once all of the answer was read."""
        if self._answer.isclosed() and self._connection is not None:
            connection, self._connection = self._connection, None
            self._lines.give_back(connection)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionClosedError(endpoint_url=self._url) from error


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
