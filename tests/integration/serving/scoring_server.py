#!/usr/bin/env python3
"""A scoring container for tests: echoes, and misbehaves as its environment or the request's custom attributes say."""

import http.server
import os
import signal
import sys
import time
from pathlib import Path

MODE = os.environ.get("MODE", "")
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if MODE == "hang" or Path("/tmp/hang").exists():
            time.sleep(3600)
        self.answer(503 if MODE == "never-ready" else 200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        verb, _, argument = self.headers.get(ATTRIBUTES, "").partition(" ")
        if verb == "exit":
            os._exit(int(argument))
        if verb == "sleep":
            time.sleep(float(argument))
        if verb == "hang":
            Path("/tmp/hang").touch()
        if verb == "drop":
            self.close_connection = True
            return
        if verb == "status":
            self.answer(int(argument), b"the model says no")
        elif verb == "headers":
            self.answer(200, str(self.headers).encode())
        elif verb == "model":
            self.answer(200, Path("/opt/ml/model", argument).read_bytes())
        elif verb == "version":
            self.answer(200, os.environ.get("VERSION", "").encode())
        else:
            self.answer(200, body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.headers.get("Content-Type") or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(ATTRIBUTES, "echoed")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing per request."""


if __name__ == "__main__":
    assert sys.argv[1:] == [], sys.argv
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"starting in mode {MODE!r}", flush=True)  # noqa: T201 - what the log is tested with
    if MODE == "exit":
        sys.exit(3)
    if MODE == "slow-start":
        time.sleep(2)
    if MODE != "no-server":
        Server(("0.0.0.0", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Handler).serve_forever()
    time.sleep(3600)
