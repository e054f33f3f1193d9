"""Checkpoints of a job that still trains, served: one by its name, then the newest, without a failed request."""

from __future__ import annotations

import textwrap
from pathlib import Path

from raymaker.platform.client import Client
from support.faults import eventually
from support.hosting import Hosting, Traffic
from support.jobs import fresh_name
from support.platform import Platform
from support.s3 import ObjectStore

TRAIN = """
import itertools, pathlib, time

for epoch in itertools.count(1):
    folder = pathlib.Path(f"/opt/ml/checkpoints/epoch-{epoch}")
    folder.mkdir()
    (folder / "name").write_text(f"epoch-{epoch}")
    print(f"epoch={epoch}", flush=True)
    time.sleep(4)
"""
SERVE = """
import http.server, os, pathlib

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self): self.answer(b"")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(pathlib.Path("/opt/ml/model/name").read_bytes() + b"=")
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()
"""


def test_an_endpoint_serves_a_checkpoint_and_moves_to_the_newest_while_the_job_trains(
    platform: Platform, hosting: Hosting, s3: ObjectStore, tmp_path: Path
) -> None:
    for name, code in (("train.py", TRAIN), ("serve.py", SERVE)):
        (tmp_path / name).write_text(textwrap.dedent(code))
    bucket, endpoint = f"s3://{s3.bucket()}", fresh_name("moving")
    with Client(platform.url) as client:
        job = client.train(
            source=tmp_path, entry_point="train.py", output=f"{bucket}/out", checkpoints=f"{bucket}/checkpoints"
        )
        names = eventually(lambda: [it["CheckpointName"] for it in job.checkpoints()], "a checkpoint is stored", 60)
        hosting.made.append(endpoint)
        job.deploy(endpoint, checkpoint=names[-1])
        first = names[-1].encode()
        assert hosting.invoke(endpoint, b"x")["Body"] == first + b"="
        eventually(lambda: len(job.checkpoints()) > len(names), "another checkpoint is stored", 60)
        with Traffic(hosting, endpoint) as traffic:
            job.deploy(endpoint, checkpoint="latest")
            eventually(lambda: not traffic.last.startswith(first + b"="), "a later checkpoint answers")
            newest = traffic.last.decode().rstrip("=")
        assert job.status == "InProgress"
        assert int(newest.removeprefix("epoch-")) > int(first.removeprefix(b"epoch-"))
        assert newest in [it["CheckpointName"] for it in job.checkpoints()]
        assert traffic.failures == []
        job.stop(wait=True)
