"""The evaluator: what it takes from a job that trains, and how soon a checkpoint's metrics are there.

The first beside the same job alone, and beside one while whose steps the same is done by hand, in turns; the second
beside the same container started and asked by hand.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import numpy as np
from sklearn import metrics

from raymaker.platform.client import Client, TrainingJob
from support.engine import BASE_IMAGE
from support.measure import median, print_table
from support.platform import running_platform

IMAGE = f"raymaker-bench-evaluated:{os.getpid()}"
DOCKERFILE = f"FROM {BASE_IMAGE}\nCOPY train serve /usr/local/bin/\n"
TRAIN = """#!/usr/bin/python3
# One CPU's worth of steps for SECONDS; a checkpoint that can be served every EVERY seconds.
import json, os, pathlib, time
settings = json.load(open("/opt/ml/input/config/hyperparameters.json"))
until, every = time.monotonic() + float(settings["seconds"]), float(settings["every"])
saved_at, steps, number = time.monotonic(), 0, 0
while time.monotonic() < until:
    sum(i * i for i in range(20000))
    steps += 1
    if time.monotonic() - saved_at >= every:
        saved_at, number = time.monotonic(), number + 1
        part = pathlib.Path(f"/opt/ml/checkpoints/.epoch-{number}")
        part.mkdir()
        (part / "scale").write_text("1.5")
        part.rename(part.with_name(f"epoch-{number}"))
print(f"steps={steps} share={time.process_time() / float(settings['seconds']):.4f}", flush=True)
"""
SERVE = """#!/usr/bin/python3
import http.server, pathlib
scale = float(pathlib.Path("/opt/ml/model/scale").read_text())
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def log_message(self, *_): pass
    def do_GET(self): self.answer(b"")
    def do_POST(self):
        rows = self.rfile.read(int(self.headers["Content-Length"])).split()
        self.answer(b"".join(b"%f\\n" % (scale * float(row.split(b",")[0])) for row in rows))
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
ROUNDS = 3
SECONDS, EVERY = 60, 5
SCORED_COUNT = 5
ALONE, EVALUATED, BY_HAND = "alone", "with the evaluator", "evaluated by hand"
RECORD_COUNT = 2000
BATCH_COUNT = 100


def main() -> None:
    """Measure and print both tables."""
    engine = docker.from_env()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(engine, folder / "image")
        write_model_and_rows(folder / "model", folder / "rows")
        with running_platform(driver="docker", cpus=8) as platform, Client(platform.url) as client:
            throughput(client, engine, folder)
            latency(client, engine, folder)
    engine.images.remove(IMAGE, force=True)
    engine.close()


def build(engine: docker.DockerClient, folder: Path) -> None:
    """Build the image that trains and serves."""
    folder.mkdir()
    for name, content in {"Dockerfile": DOCKERFILE, "train": TRAIN, "serve": SERVE}.items():
        (folder / name).write_text(textwrap.dedent(content))
        (folder / name).chmod(0o755)
    engine.images.build(path=str(folder), tag=IMAGE, rm=True)


def write_model_and_rows(model: Path, folder: Path) -> None:
    """Write a model like those of the checkpoints, and records of two columns, a number and its known result."""
    model.mkdir()
    (model / "scale").write_text("1.5")
    folder.mkdir()
    numbers = np.random.default_rng(0).normal(size=RECORD_COUNT)
    np.savetxt(folder / "rows.csv", np.column_stack([numbers, 1.5 * numbers + 0.1]), delimiter=",")


def train(client: Client, folder: Path, *, evaluated: bool, seconds: float, every: float) -> TrainingJob:
    """Start a job, evaluated or not."""
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": (folder / "rows").as_uri()}}
    config = {"DataSource": source, "LabelAttribute": "-1", "ProblemType": "Regression"}
    return client.train(
        image=IMAGE,
        output=folder / "out",
        checkpoints=folder / f"checkpoints-{time.time_ns()}",
        hyperparameters={"seconds": seconds, "every": every},
        evaluation=config if evaluated else None,
    )


def throughput(client: Client, engine: docker.DockerClient, folder: Path) -> None:
    """Print how many steps a job makes alone, with the evaluator, and with the same done by hand beside it.

    And how much of a CPU it got: how much a CPU does in a second differs from minute to minute on shared machines.
    """
    steps: dict[str, list[float]] = {ALONE: [], EVALUATED: [], BY_HAND: []}
    shares: dict[str, list[float]] = {way: [] for way in steps}
    evaluations = 0
    for _ in range(ROUNDS):
        for way, counts in steps.items():
            with scoring_by_hand(engine, folder) if way == BY_HAND else contextlib.nullcontext():
                job = train(client, folder, evaluated=way == EVALUATED, seconds=SECONDS, every=EVERY)
                job.wait(progress=False)
            said = re.search(r"steps=(\d+) share=([0-9.]+)", "\n".join(job.logs()))
            assert said is not None
            counts.append(float(said[1]))
            shares[way].append(float(said[2]))
            evaluations += len(job.evaluations(status="Completed"))
    rows = []
    for way, counts in steps.items():
        ratios = sorted(mine / alone for mine, alone in zip(counts, steps[ALONE], strict=True))
        rate = f"{median(counts) / SECONDS:.1f}/s"
        share = f"{median(shares[way]):.3f} ({min(shares[way]):.3f} to {max(shares[way]):.3f})"
        rows.append([way, rate, f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})", share])
    title = f"steps of a job that stores a checkpoint every {EVERY} s, median of {ROUNDS}; {evaluations} evaluations"
    print_table(f"{title}; {os.cpu_count()} CPUs", ["", "steps", "of alone", "of a CPU"], rows)


@contextlib.contextmanager
def scoring_by_hand(engine: docker.DockerClient, folder: Path) -> Iterator[None]:
    """Score by hand every EVERY seconds, meanwhile."""
    is_over = threading.Event()

    def score() -> None:
        while not is_over.wait(EVERY):
            score_by_hand(engine, folder / "model", folder / "rows" / "rows.csv")

    with ThreadPoolExecutor(1) as thread:
        scoring = thread.submit(score)
        try:
            yield
        finally:
            is_over.set()
        scoring.result()


def latency(client: Client, engine: docker.DockerClient, folder: Path) -> None:
    """Print how long it takes from a whole checkpoint to its metrics, beside the same by hand."""
    job = train(client, folder, evaluated=True, seconds=4 * SCORED_COUNT * EVERY, every=EVERY)
    while len(job.evaluations(status="Completed")) < SCORED_COUNT:
        time.sleep(0.5)
    job.stop(wait=True)
    stored = {
        event["Message"].partition(" ")[0]: event["Time"].timestamp()
        for event in job.events()
        if event["Kind"] == "CheckpointStored"
    }
    completed = [it for it in job.evaluations(status="Completed") if it.get("CheckpointName") in stored]
    ours = [it["EndTime"].timestamp() - stored[it["CheckpointName"]] for it in completed]
    by_hand = [score_by_hand(engine, folder / "model", folder / "rows" / "rows.csv") for _ in range(SCORED_COUNT)]
    floor, found = median(by_hand), median(ours)
    rows = [
        ["docker run, /ping, rows, metrics by hand", f"{floor:.2f} s", "1"],
        ["from CheckpointStored to metrics", f"{found:.2f} s", f"{found / floor:.2f}"],
    ]
    title = f"a checkpoint's metrics on {RECORD_COUNT} records, median of {len(ours)} and of {SCORED_COUNT} by hand"
    print_table(title, ["", "takes", "of by hand"], rows)


def score_by_hand(engine: docker.DockerClient, model: Path, rows: Path) -> float:
    """Start the container, ask it for all rows and compute the same metrics; seconds that it takes."""
    begun = time.perf_counter()
    volumes = {str(model): {"bind": "/opt/ml/model", "mode": "ro"}}
    container = engine.containers.run(IMAGE, "serve", volumes=volumes, detach=True)
    try:
        address = await_address(container)
        table = np.loadtxt(rows, delimiter=",")
        connection = http.client.HTTPConnection(address, 8080)
        answers: list[Any] = []
        for start in range(0, len(table), BATCH_COUNT):
            body = io.BytesIO()
            np.savetxt(body, table[start : start + BATCH_COUNT, :1], delimiter=",")
            connection.request("POST", "/invocations", body.getvalue(), {"Content-Type": "text/csv"})
            answers += np.loadtxt(io.BytesIO(connection.getresponse().read())).tolist()
        connection.close()
        metrics.root_mean_squared_error(table[:, 1], answers)
        metrics.median_absolute_error(table[:, 1], answers)
        metrics.r2_score(table[:, 1], answers)
        return time.perf_counter() - begun
    finally:
        container.remove(force=True)


def await_address(container: Any) -> str:
    """Wait until a container answers /ping, and return where."""
    while True:
        container.reload()
        address = next((it["IPAddress"] for it in container.attrs["NetworkSettings"]["Networks"].values()), "")
        try:
            connection = http.client.HTTPConnection(address, 8080, timeout=1)
            connection.request("GET", "/ping")
            if address and connection.getresponse().status == http.HTTPStatus.OK:
                return str(address)
        except OSError:
            time.sleep(0.01)


if __name__ == "__main__":
    main()
