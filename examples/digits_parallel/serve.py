"""Serve what train.py learned: GET /ping, POST /invocations with CSV rows; one label per row comes back."""

from __future__ import annotations

import io
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from network import Network

PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
NETWORK = Network.load(Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model")) / "network.npz")


class Handler(BaseHTTPRequestHandler):
    """One thread per connection; connections stay open between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # the answer's head and body leave in one packet

    def do_GET(self) -> None:
        """Answer the health check."""
        self._answer(200 if self.path == "/ping" else 404, "")

    def do_POST(self) -> None:
        """Score the rows of the body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            labels = NETWORK.probabilities(np.loadtxt(io.BytesIO(body), delimiter=",", ndmin=2)).argmax(axis=1)
        except ValueError as error:
            return self._answer(400, f"cannot score these rows: {error}\n")
        return self._answer(200, "".join(f"{label}\n" for label in labels))

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep the log for what is worth reading: no line per request."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", PORT), Handler)
    # shutdown() waits for the loop below to end, so it must not run in the loop's own thread
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"serving on port {PORT}", flush=True)
    server.serve_forever()
