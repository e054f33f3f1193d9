#!/usr/bin/env python3
"""A scoring container for tests: echoes, and misbehaves as its environment or the request's custom attributes say."""

import http.server
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path

MODE = os.environ.get("MODE", "")
MODELS: dict[str, bytes] = {}
LOADS: dict[str, int] = {}
LOCK = threading.Lock()
LEFT: list[int] = []
"""How many pieces each client had been sent that left before its stream was over."""
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

    def do_DELETE(self) -> None:
        self.answer(200 if MODELS.pop(self.path.removeprefix("/models/"), None) else 404, b"")

    def load_model(self, body: bytes) -> None:
        """Take up a model by the multi-model contract; there is room for as many as the environment says."""
        asked = json.loads(body)
        name, path = asked["model_name"], Path(asked["url"])
        with LOCK:
            room = len(MODELS) < int(os.environ["ROOM"])
            status = 409 if name in MODELS else 200 if room else 507
            if status == 200:
                LOADS[name] = LOADS.get(name, 0) + 1
                MODELS[name] = (path / "weights.txt").read_bytes()
        self.answer(status, b"")

    def ask_model(self, name: str) -> None:
        """Answer for one of many models."""
        if name not in MODELS:
            self.answer(404, b"no such model")
            return
        said = {"loaded": len(MODELS), "loads": LOADS[name]}.get(self.headers[ATTRIBUTES], MODELS[name])
        self.answer(200, said if isinstance(said, bytes) else str(said).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/models":
            self.load_model(body)
            return
        if self.path.startswith("/models/"):
            self.ask_model(self.path.split("/")[2])
            return
        verb, _, argument = self.headers.get(ATTRIBUTES, "").partition(" ")
        if verb == "exit":
            os._exit(int(argument))
        if verb == "sleep":
            time.sleep(float(argument))
        if verb == "hang":
            Path("/tmp/hang").touch()
        if verb == "await-leave":
            self.await_leave(float(argument))
        if verb == "drop":
            self.close_connection = True
            return
        if verb in {"stream", "break"}:
            self.stream(verb, *argument.split())
        elif verb == "status":
            self.answer(int(argument), b"the model says no")
        else:
            said = SAY.get(verb, lambda *_: body)(self, argument)
            self.answer(200, said if isinstance(said, bytes) else str(said).encode())

    def stream(self, verb: str, count: str, size: str, pause: str = "0") -> None:
        """Send `count` pieces of `size` bytes as chunks; `break` ends without the last one, which has no bytes."""
        self.send_response(200)
        self.send_header("Content-Type", self.headers.get("Accept") or "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header(ATTRIBUTES, "streamed")
        self.end_headers()
        sent = 0
        try:
            for number in range(int(count)):
                piece = str(number % 10).encode() * int(size)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                sent += 1
                Path("/tmp/sent").write_text(str(sent))
                time.sleep(float(pause))
            if verb == "stream":
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            LEFT.append(sent)
        self.close_connection = verb == "break"

    def await_leave(self, most_s: float) -> None:
        """Work until the client leaves."""
        if select.select([self.connection], [], [], most_s)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            LEFT.append(0)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.headers.get("Content-Type") or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(ATTRIBUTES, "echoed")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing per request."""


SAY = {
    "headers": lambda handler, _: handler.headers,
    "model": lambda _, name: Path("/opt/ml/model", name).read_bytes(),
    "sent": lambda *_: Path("/tmp/sent").read_bytes(),
    "left": lambda *_: len(LEFT),
    "version": lambda *_: os.environ.get("VERSION", ""),
}
"""What it answers when it is asked for this by the custom attributes; anything else is echoed."""


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
