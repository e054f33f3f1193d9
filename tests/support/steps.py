"""A small image that does what a request tells it: train for some steps, fail, hang, ignore SIGTERM; serve an echo."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator

import docker
import pytest

NAME = f"raymaker-test-steps:{os.getpid()}"
"""This session's own: another one may make and remove the same image meanwhile."""

TRAIN = r"""#!/bin/sh
# Trains by counting: `steps` lines, one each 0.1 s; then `exit_code`. `failure` is written where the contract says.
value() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" /opt/ml/input/config/hyperparameters.json; }
trap 'echo stopping; echo stopped > /opt/ml/model/stopped; exit 0' TERM
[ "$(value deaf)" = 1 ] && trap '' TERM
steps=$(value steps); step=0
cat /opt/ml/input/data/train/* 2>/dev/null
while [ "$step" -lt "${steps:-0}" ]; do
    step=$((step + 1))
    echo "step=$step loss=$((100 - step)).5"
    sleep 0.1 & wait $!
done
failure=$(value failure)
[ -n "$failure" ] && printf '%s' "$failure" > /opt/ml/output/failure
echo "$step" > /opt/ml/model/steps
echo "extra" > /opt/ml/output/data/extra
exit "$(value exit_code | grep . || echo 0)"
"""

SERVE = r"""#!/usr/bin/env python3
import http.server, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", self.headers.get("Accept") or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(503 if os.environ.get("NEVER_WELL") else 200, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        model = open("/opt/ml/model/steps").read().strip() if os.path.exists("/opt/ml/model/steps") else "none"
        said = os.environ.get("SAY", "model")
        time.sleep(float(os.environ.get("TAKES_S", "0")))
        self.answer(500 if body == b"fail" or os.environ.get("FAILS") else 200, f"{said}={model} got=".encode() + body)
if os.environ.get("EXITS"):
    sys.exit("cannot serve")
print("serving", flush=True)
port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()
"""


@pytest.fixture(scope="session")
def steps_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """The name of the image, in the engine."""
    context = io.BytesIO()
    dockerfile = f"FROM {base_image}\nCOPY train serve /usr/local/bin/\n"
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in {"Dockerfile": dockerfile, "train": TRAIN, "serve": SERVE}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    engine.images.build(fileobj=context, custom_context=True, tag=NAME, rm=True)
    yield NAME
    engine.images.remove(NAME, force=True)
