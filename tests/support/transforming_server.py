#!/usr/bin/env python3
"""A scoring container for tests of batch transform: answers by line, and misbehaves where a record says so.

Each line is answered with itself between brackets. `sleep`, `kill`, `bad`, `flaky` in a body do what they say.
"""

import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

LOCK = threading.Lock()
UNDER_WAY = {"now": 0, "most": 0}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/ping":
            self.answer(200, b"")
        elif self.path == "/execution-parameters" and "PARAMETERS" in os.environ:
            self.answer(200, os.environ["PARAMETERS"].encode())
        else:
            self.answer(404, b"")

    def do_POST(self) -> None:
        body = self.body()
        with LOCK:
            UNDER_WAY["now"] += 1
            UNDER_WAY["most"] = max(UNDER_WAY.values())
        time.sleep(float(os.environ.get("DELAY_S", "0")))
        if b"sleep" in body:
            time.sleep(3600)
        if b"kill" in body:
            os._exit(9)
        with LOCK:
            UNDER_WAY["now"] -= 1
        if b"bad" in body:
            self.answer(400, b"cannot score a bad record")
        elif b"flaky" in body and not Path("/tmp/tried").exists():
            Path("/tmp/tried").touch()
            self.answer(503, b"not now")
        else:
            self.answer(200, self.score(body))

    def score(self, body: bytes) -> bytes:
        mode = os.environ.get("MODE", "lines")
        if mode == "echo":
            return body
        if mode == "size":
            return b"%d" % len(body)
        if mode == "about":
            told = {name: value for name, value in os.environ.items() if name.startswith("SAGEMAKER_")}
            about = {"environment": told, "accept": self.headers["Accept"], "type": self.headers["Content-Type"]}
            return json.dumps({**about, "most": UNDER_WAY["most"]}).encode()
        return b"".join(b"<%s>\n" % line for line in body.split(b"\n") if line)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.headers.get("Accept") or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing per request."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print("serving", flush=True)  # noqa: T201 - what the log is tested with
    if os.environ.get("MODE") == "broken":
        sys.exit(3)
    if os.environ.get("MODE") == "slow":
        time.sleep(3600)
    Server(("0.0.0.0", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Handler).serve_forever()
