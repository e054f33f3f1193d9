"""The whole API without a socket: the client's requests go straight to the frontend's dispatch, over SQLite.

The machines' part is played by verbs (`complete_job`, `endpoint_comes_up`); what should happen while the client waits
is put in line with `meanwhile`, one step for each time that it sleeps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import EndpointConnectionError

from raymaker.actors.reports import JobReport, Metric, Outcome, UpdateReport, UpdateStage
from raymaker.actors.runtime.base import LogLine
from raymaker.platform import dispatch
from raymaker.platform.client import Client
from raymaker.platform.client.connection import Connection
from raymaker.platform.client.logs import ENDPOINT_GROUP, TRAINING_GROUP
from raymaker.platform.client.polling import Clock
from raymaker.platform.database import hosting, metrics, training, updates
from raymaker.platform.logstore import LogStore
from support.frontend import make_context

URL = "http://127.0.0.1:8000"
SERVICES = ("sagemaker", "sagemaker-runtime", "logs")
IDLE_LIMIT_S = 600.0
Scorer = Callable[[bytes, Mapping[str, str]], tuple[int, dict[str, str], bytes]]


class NearPlatform:
    """A platform that answers at once and never does anything by itself."""

    def __init__(self, home: Path, *, share_clients: bool) -> None:
        self.now = 1_700_000_000.0
        self.context = dataclasses.replace(make_context(home), now=lambda: self.now)
        self.context.database.migrate()
        self.logs = LogStore(self.context.settings.home_path / "logs")
        self.client = Client(URL, clock=Clock(lambda: self.now, self._sleep))
        self._clients = (
            _clients() if share_clients else {name: self.client.connection.client(name) for name in SERVICES}
        )
        self.client.connection._clients.update(self._clients)
        for client in self._clients.values():
            client.meta.events.register("before-send", self._answer)
        self.away = False
        self.signed_with: set[str] = set()
        self._last_step = self.now
        self._coming: deque[Callable[[], object]] = deque()
        self._scorers: dict[str, Scorer] = {}

    def close(self) -> None:
        for client in self._clients.values():
            client.meta.events.unregister("before-send", self._answer)
        self.client.close()
        self.context.database.dispose()

    def meanwhile(self, *steps: Callable[[], object]) -> None:
        """Have these happen while the client waits, one at each time that it sleeps."""
        self._coming.extend(steps)

    def start_job(self, name: str) -> None:
        training.start_attempt(self.context.database, name, self.now)

    def keep_job_waiting(self, name: str, reason: str) -> None:
        with self.context.database.transaction() as connection:
            training.mark_pending(connection, name, reason, self.now)

    def report(self, name: str, phase: str, outcome: Outcome | None = None, **facts: Any) -> None:
        said = JobReport(name, 1, phase, f"{phase} it is", self.now, outcome=outcome, **facts)
        training.apply_report(self.context.database, said, self.now)

    def complete_job(self, name: str, model_uri: str = "s3://bucket/out/model.tar.gz") -> None:
        self.start_job(name)
        self.report(name, "Training", training_started_at=self.now)
        self.report(name, "Completed", Outcome.COMPLETED, model_uri=model_uri, training_ended_at=self.now + 7)

    def fail_job(self, name: str, reason: str) -> None:
        self.start_job(name)
        self.report(name, "Failed", Outcome.FAILED, failure_reason=reason)

    def job_says(self, name: str, *lines: str, stream: str = "algo-1-1") -> None:
        self._say(TRAINING_GROUP, f"{name}/{stream}", lines)

    def endpoint_says(self, name: str, *lines: str) -> None:
        self._say(f"{ENDPOINT_GROUP}{name}", "AllTraffic/one", lines)

    def job_measures(self, job: str, name: str, *values: float) -> None:
        found = [Metric(name, value, self.now + number) for number, value in enumerate(values)]
        metrics.insert_metrics(self.context.database, job, 1, found)

    def make_update(
        self, job: str, revision: int, *, stage: UpdateStage = UpdateStage.APPLIED, reason: str = ""
    ) -> None:
        updates.apply_update_report(self.context.database, UpdateReport(job, 1, revision, stage, reason), self.now)

    def endpoint_comes_up(self, name: str, generation: int = 1) -> None:
        hosting.endpoint_healthy(self.context.database, name, generation, {"AllTraffic": 1}, self.now)

    def endpoint_fails(self, name: str, reason: str, generation: int = 1) -> None:
        hosting.endpoint_failed(self.context.database, name, generation, reason, self.now)

    def endpoint_goes(self, name: str) -> None:
        hosting.endpoint_gone(self.context.database, name)

    def scores_with(self, name: str, scorer: Scorer) -> None:
        """Have the endpoint's container answer: body and headers to status, headers and body."""
        self._scorers[name] = scorer

    def names(self, operation: str, key: str, field: str) -> list[str]:
        """The names that a List operation tells."""
        return [item[field] for item in self.client.connection.items(operation, key)]

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0, "a wait that does not pause would never end"
        self.now += seconds
        if self._coming:
            self._coming.popleft()()
            self._last_step = self.now
        assert self.now - self._last_step < IDLE_LIMIT_S, "the client waits for something that no step brings"

    def _say(self, group: str, stream: str, lines: tuple[str, ...]) -> None:
        begin = max(int(self.now * 1e9), self.logs.last_time(group, stream) + 1)
        self.logs.append(group, stream, [LogLine(begin + number, line) for number, line in enumerate(lines)])

    def _answer(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        if self.away:
            raise EndpointConnectionError(endpoint_url=request.url)
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        self.signed_with.add(headers["authorization"].partition("Credential=")[2].partition("/")[0])
        body = request.body if isinstance(request.body, bytes) else (request.body or "").encode()
        path = urlsplit(request.url).path
        if path.startswith("/endpoints/"):
            status, answered, content = self._score(path, body, headers)
        else:
            found = dispatch.answer_json(self.context, headers.get("x-amz-target"), body, "request-1")
            status, answered, content = found.status, dict(found.headers), found.body
        raw = urllib3.HTTPResponse(io.BytesIO(content), answered, status, preload_content=False)
        return AWSResponse(request.url, status, raw.headers, raw)

    def _score(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        scorer = self._scorers.get(unquote(path.split("/")[2]))
        if scorer is not None:
            return scorer(body, headers)
        found = dispatch.explain_missing_route(self.context, path, "request-1")
        return found.status, dict(found.headers), found.body


@contextlib.contextmanager
def near_platform(home: Path, *, share_clients: bool = True) -> Iterator[NearPlatform]:
    """Make one, and close what it opened after the block. All share botocore's clients, which take long to make."""
    dispatch.load_operations()
    platform = NearPlatform(home, share_clients=share_clients)
    try:
        yield platform
    finally:
        platform.close()


@functools.cache
def _clients() -> dict[str, Any]:
    connection = Connection(URL)
    return {name: connection.client(name) for name in SERVICES}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
