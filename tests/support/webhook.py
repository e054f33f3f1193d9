"""A webhook that fails once, as webhooks do."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Webhook:
    """Where it answers, and what it was told."""

    url: str
    told: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    """A webhook of this machine that refuses the first notice."""
    failures = [503]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notice = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = failures.pop() if failures else 204
            if status == 204:
                made.told.append(notice)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Webhook(f"http://127.0.0.1:{server.server_port}/hook")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()
