#!/usr/bin/env python3
"""A scoring container for graphs, told by each request what to answer. Runs by itself in an image, and in-process.

The request's Custom-Attributes, which travel to every step, hold a script: for each container a list of replies, one
for each time that it is called with the same Inference-Id, the last one again and again. A reply is an object:

    {"status": 200, "type": "application/json", "body": "..."}   answer this
    {"tell": true}                                               answer with what was given, as a JSON object
    {"hang": true} or {"break": true}                            never answer, or close the connection
    {}                                                           answer with the body, wrapped in the container's name

A container's name is its STUB_NAME. What is not in the script wraps.
"""

from __future__ import annotations

import collections
import http.server
import json
import os
import signal
import threading

CALLS: collections.Counter = collections.Counter()


def choose_reply(name: str, attributes: str, call_number: int) -> dict:
    """What a container is told to do; `call_number` counts from 0."""
    replies = json.loads(attributes or "{}").get(name, [{}])
    return replies[min(call_number, len(replies) - 1)]


def make_answer(name: str, reply: dict, headers: dict, body: bytes) -> tuple[int, str, bytes]:
    """The status, content type and body of a reply that answers."""
    if "tell" in reply:
        told = {"by": name, "type": headers.get("content-type"), "accept": headers.get("accept"), "body": body.decode()}
        return 200, "application/json", json.dumps(told).encode()
    if "status" in reply:
        return reply["status"], reply.get("type", "application/json"), reply.get("body", "").encode("latin-1")
    return 200, headers.get("content-type", ""), name.encode() + b"(" + body + b")"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        self.send("200 OK", "", b"")

    def do_POST(self) -> None:
        name = os.environ["STUB_NAME"]
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {key.lower(): value for key, value in self.headers.items()}
        inference_id = headers.get("x-amzn-sagemaker-inference-id", "")
        reply = choose_reply(name, headers.get("x-amzn-sagemaker-custom-attributes", ""), CALLS[inference_id])
        CALLS[inference_id] += 1
        if "hang" in reply:
            threading.Event().wait(60)
        if "hang" in reply or "break" in reply:
            self.close_connection = True
            return
        status, content_type, answer = make_answer(name, reply, headers, body)
        self.send(f"{status} Stub", content_type, answer)

    def send(self, status: str, content_type: str, body: bytes) -> None:
        code, reason = status.split(" ", 1)
        self.send_response(int(code), reason)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()
