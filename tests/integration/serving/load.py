"""Steady requests to one endpoint from a few threads, each answer kept."""

from __future__ import annotations

import collections
import http.client
import threading
import time
from types import TracebackType
from typing import Self

THREADS = 4


class Load:
    """Asks the endpoint for its version as long as the block lasts, on connections that are kept."""

    def __init__(self, port: int, endpoint: str) -> None:
        self._port = port
        self._path = f"/endpoints/{endpoint}/invocations"
        self._over = threading.Event()
        self._answers: list[tuple[float, bytes]] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: bytes) -> None:
        """Wait until every later answer comes from this version: here, ten in a row asked from now on."""
        began, deadline = time.monotonic(), time.monotonic() + 30
        while True:
            later = [answer for asked, answer in self._answers if asked > began]
            if len(later) >= 10 and set(later[-10:]) == {version}:
                return
            assert time.monotonic() < deadline, (later[-3:], self.failures)
            time.sleep(0.05)

    def count(self, least: int) -> collections.Counter[bytes]:
        """Wait until this many more were answered, and count who answered them."""
        began, deadline = time.monotonic(), time.monotonic() + 120
        while len(later := [body for asked, body in self._answers if asked > began]) < least:
            assert time.monotonic() < deadline, (len(later), self.failures)
            time.sleep(0.05)
        return collections.Counter(later)

    def take_failures(self) -> list[str]:
        """What failed until now; it is not counted again."""
        taken, self.failures[:] = list(self.failures), []
        return taken

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        headers = {"X-Amzn-SageMaker-Custom-Attributes": "version"}
        while not self._over.is_set():
            asked = time.monotonic()
            try:
                connection.request("POST", self._path, b"x", headers)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if answer.status == 200:
                self._answers.append((asked, body))
            else:
                self.failures.append(f"{answer.status} {body!r}")
            time.sleep(0.005)
        connection.close()
