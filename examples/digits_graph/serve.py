"""One part of the graph, the one that the environment variable PART names: GET /ping, POST /invocations with JSON.

`scaler` takes `{"instances": [[...], ...]}` and gives `{"scaled": ...}`. The classifiers `linear`, `centroid` and `big`
take either and give `{"by": ..., "labels": [...], "confidences": [...]}`. `agreed` takes two votes and gives the surer.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import models
import numpy as np

PART = os.environ["PART"]
PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
SCALER, CLASSIFIERS = models.load(Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model")))


def answer(document: dict[str, Any]) -> dict[str, Any]:
    """Do this part's work."""
    if PART == "agreed":
        return max(document.values(), key=lambda vote: vote["confidences"][0]) | {"by": PART}
    if "scaled" in document:
        rows = np.array(document["scaled"], float, ndmin=2)
    else:
        rows = SCALER.scale(np.array(document["instances"], float, ndmin=2))
    if PART == "scaler":
        return {"scaled": rows.tolist()}
    probabilities = CLASSIFIERS[PART].probabilities(rows)
    labels, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return {"by": PART, "labels": labels.tolist(), "confidences": confidences.round(4).tolist()}


class Handler(BaseHTTPRequestHandler):
    """One thread per connection; connections stay open between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # the answer's head and body leave in one packet

    def do_GET(self) -> None:
        """Answer the health check."""
        self._say(200 if self.path == "/ping" else 404, {})

    def do_POST(self) -> None:
        """Answer one invocation."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            said = answer(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            return self._say(400, {"error": f"{PART} cannot read this: {error!r}"})
        return self._say(200, said)

    def _say(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep the log for what is worth reading: no line per request."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", PORT), Handler)
    # shutdown() waits for the loop below to end, so it must not run in the loop's own thread
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{PART} serves on port {PORT}", flush=True)
    server.serve_forever()
