"""Ranges of objects of a store that is spoken to without TLS, read straight into the caller's memory.

botocore makes every request anew, and urllib3 below it copies every piece of a body once more: on plain HTTP that is
most of what reading costs. Here botocore signs one URL for an object, which holds for all of its ranges, and they come
through http.client. Whatever is no plain success is left to botocore, which knows what it means.
"""

from __future__ import annotations

import functools
import http.client
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    ReadTimeoutError,
)

MOST_IDLE_COUNT = 16
MOST_SIGNED_COUNT = 256
SIGNED_FOR_S = 900
RENEWED_AFTER_S = 300


def can_read_straight(endpoint_url: str | None) -> bool:
    """Tell whether an endpoint is a plain one, and no proxy is before it."""
    where = urlsplit(endpoint_url or "")
    no_proxy = not urllib.request.getproxies() or bool(urllib.request.proxy_bypass(where.hostname or ""))
    return where.scheme == "http" and no_proxy


class PlainReader:
    """Connections to one server, kept for the next range. `sign` gives a URL of an object that holds for SIGNED_FOR_S.

    Threads may share it. Its calls raise botocore's errors of transfers.
    """

    def __init__(
        self, endpoint_url: str, sign: Callable[[str], str], *, connect_timeout_s: float, silence_s: float
    ) -> None:
        self.place = urlsplit(endpoint_url).netloc
        self._sign = functools.lru_cache(MOST_SIGNED_COUNT)(lambda path, _period: sign(path))
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def open(self, path: str, start: int, stop: int, version: str | None) -> Body | None:
        """Ask for a range; None where the store does not just give it."""
        url = urlsplit(self._sign(path, int(time.monotonic() // RENEWED_AFTER_S)))
        if url.netloc != self.place:
            return None
        headers = {"Range": f"bytes={start}-{stop - 1}", **({} if version is None else {"If-Match": version})}
        connection, answer = self._ask(f"{url.path}?{url.query}", headers)
        if answer.status != http.client.PARTIAL_CONTENT or answer.length is None or "ETag" not in answer.headers:
            connection.close()
            return None
        return Body(self, connection, answer, answer.length)

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        if connection.sock is not None:
            connection.sock.settimeout(self._silence_s)
            with self._lock:
                if len(self._idle) < MOST_IDLE_COUNT:
                    self._idle.append(connection)
                    return
        connection.close()

    def __del__(self) -> None:
        for connection in self._idle:
            connection.close()

    def _ask(self, target: str, headers: dict[str, str]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request, on a new connection where the server has closed those that are kept."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            is_new = connection is None
            connection = connection or self._connect()
            try:
                connection.request("GET", target, headers=headers)
                return connection, connection.getresponse()
            except TimeoutError as error:
                connection.close()
                raise ReadTimeoutError(endpoint_url=self.place, error=error) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if is_new:
                    raise ConnectionClosedError(endpoint_url=self.place) from error

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.place, timeout=self._connect_timeout_s)
        try:
            connection.connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=self.place, error=error) from error
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=self.place, error=error) from error
        connection.sock.settimeout(self._silence_s)
        seconds, microseconds = divmod(int(self._silence_s * 1e6), 1_000_000)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, microseconds))
        return connection


class Body:
    """The body of one answer. Its calls raise botocore's errors of transfers.

    The kernel is asked to fill all of what it is given: a call for each segment that comes, and a wait for Python's
    lock after each, cost more than the copying.
    """

    def __init__(
        self,
        reader: PlainReader,
        connection: http.client.HTTPConnection,
        answer: http.client.HTTPResponse,
        size_bytes: int,
    ) -> None:
        self._reader = reader
        self._connection: http.client.HTTPConnection | None = connection
        self._answer = answer
        self._left_bytes = size_bytes
        self._socket = connection.sock
        """None where the server closes the connection after this answer, which http.client then keeps to itself."""
        self._buffered_bytes: int | None = None
        """How much http.client has received already, beyond the headers; None before that is known."""
        self.headers = answer.headers

    def readinto(self, view: memoryview) -> int:
        """Fill some of `view`, as long as the answer goes on."""
        try:
            count = self._receive(view[: self._left_bytes]) if self._left_bytes else 0
        except (TimeoutError, BlockingIOError) as error:
            raise ReadTimeoutError(endpoint_url=self._reader.place, error=error) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionClosedError(endpoint_url=self._reader.place) from error
        if not count and self._left_bytes:
            raise IncompleteReadError(actual_bytes=0, expected_bytes=self._left_bytes)
        self._left_bytes -= count
        if not self._left_bytes and self._connection is not None:
            connection, self._connection = self._connection, None
            self._answer.close()
            self._reader.give_back(connection)
        return count

    def _receive(self, view: memoryview) -> int:
        if self._socket is None:
            return self._answer.readinto(view)
        if self._buffered_bytes is None:
            self._buffered_bytes = len(self._answer.fp.peek())
            self._socket.settimeout(None)  # the kernel's own limit is in force
        if self._buffered_bytes:
            found = self._answer.fp.read(min(len(view), self._buffered_bytes))
            view[: len(found)] = found
            self._buffered_bytes -= len(found)
            return len(found)
        return self._socket.recv_into(view, len(view), socket.MSG_WAITALL)

    def close(self) -> None:
        """Let go; a connection on which something is left to read is of no use to anybody else."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._answer.close()
