"""The control plane: requests per second beside raw SQLite commits, and the memory of what stands idle."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker

from raymaker.platform.database import schema
from raymaker.platform.database.engine import Database
from support.engine import BASE_IMAGE
from support.measure import MIB, median, memory_of_home, print_table
from support.platform import Platform, running_platform

ROUNDS = 5
ROUND_S = 2.0
CLIENT_COUNTS = (1, 8)
RECORD_COUNT = 5000
ENDPOINT_COUNT = 2
CALM_S = 10.0
"""How long the platform is left alone before its memory is read."""

ROLE = "arn:aws:iam::000000000000:role/bench"
MODEL = {"ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": BASE_IMAGE, "Environment": {"A": "B" * 64}}}
_numbers = itertools.count()

SCORING_IMAGE = f"raymaker-bench-scoring:{os.getpid()}"
SCORING_DOCKERFILE = f"""
FROM {BASE_IMAGE}
RUN printf '%s\\n' '#!/usr/bin/python3' 'from http.server import *' 'class H(BaseHTTPRequestHandler):' \\
  '  def do_GET(self): self.send_response(200), self.end_headers()' \\
  'ThreadingHTTPServer(("", 8080), H).serve_forever()' >/usr/local/bin/serve && chmod +x /usr/local/bin/serve
"""


def main() -> None:
    """Measure and print both tables."""
    engine = docker.from_env()
    engine.images.build(fileobj=io.BytesIO(SCORING_DOCKERFILE.encode()), tag=SCORING_IMAGE, rm=True)
    with running_platform(driver="docker") as platform:
        time.sleep(CALM_S)
        idle = memory_of_home(platform.home)
        throughput(platform)
        memory(platform, idle)
    engine.images.remove(SCORING_IMAGE, force=True)
    engine.close()


def throughput(platform: Platform) -> None:
    """Print requests per second of a write and of a read, interleaved with commits of the same row."""
    measured: dict[str, list[float]] = {}
    sagemaker = platform.client("sagemaker")
    sagemaker.create_model(ModelName="model-known", **MODEL)
    sagemaker.close()
    with tempfile.TemporaryDirectory(dir=platform.home) as folder:
        for _ in range(ROUNDS):
            measured.setdefault("floor", []).append(raw_commits_per_s(Path(folder) / "floor.sqlite3"))
            for count in CLIENT_COUNTS:
                for name, body in (("CreateModel", new_model), ("DescribeModel", known_model)):
                    rate = requests_per_s(platform, name, body, count)
                    measured.setdefault(f"{name}, {count} client{'s' * (count > 1)}", []).append(rate)
    floor = median(measured.pop("floor"))
    rows = [[label, f"{median(rates):.0f}/s", f"{median(rates) / floor:.3f}"] for label, rates in measured.items()]
    title = f"control plane, median of {ROUNDS} rounds of {ROUND_S:g} s"
    print_table(title, ["", "rate", "of the floor"], [["raw SQLite commits, 1 thread", f"{floor:.0f}/s", "1"], *rows])


def raw_commits_per_s(path: Path) -> float:
    """Commits of one such row each, with the platform's own pragmas."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, arn TEXT, created REAL, request TEXT)"
    )
    count, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < ROUND_S:
        connection.execute("BEGIN IMMEDIATE")
        name = f"model-{next(_numbers)}"
        connection.execute("INSERT INTO models VALUES (?, ?, ?, ?)", (name, name, time.time(), json.dumps(MODEL)))
        connection.execute("COMMIT")
        count += 1
    connection.close()
    return count / passed


def requests_per_s(platform: Platform, operation: str, body: Callable[[], object], client_count: int) -> float:
    """Requests per second that `client_count` connections get answered together."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(client_count) as clients:
        counts = clients.map(lambda _: ask_for_a_while(platform, operation, body), range(client_count))
        return sum(counts) / (time.perf_counter() - begun)


def ask_for_a_while(platform: Platform, operation: str, body: Callable[[], object]) -> int:
    """Ask over one connection, one request after the other, and return how many were answered."""
    connection = http.client.HTTPConnection(platform.url.removeprefix("http://"))
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"SageMaker.{operation}"}
    count, until = 0, time.perf_counter() + ROUND_S
    while time.perf_counter() < until:
        connection.request("POST", "/", json.dumps(body()), headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{operation} was answered with {answer.status}: {text.decode()}")
        count += 1
    connection.close()
    return count


def new_model() -> object:
    """A CreateModel request whose name was never used."""
    return {"ModelName": f"model-{next(_numbers)}", **MODEL}


def known_model() -> object:
    """A DescribeModel request for one that is there."""
    return {"ModelName": "model-known"}


def memory(platform: Platform, idle: dict[int, int]) -> None:
    """Print what the idle platform takes, and what each record and each endpoint adds."""
    rows = [["idle platform", f"{sum(idle.values()) / MIB:.0f} MiB", f"{len(idle)} processes"]]
    before, size = sum(memory_of_home(platform.home).values()), stored_bytes(platform.home)
    insert_ended_jobs(platform)
    time.sleep(CALM_S)
    grown = sum(memory_of_home(platform.home).values()) - before
    rows.append(["per ended job record, in memory", f"{max(0, grown) / RECORD_COUNT:.0f} B", f"{RECORD_COUNT} records"])
    rows.append(["per ended job record, on disk", f"{(stored_bytes(platform.home) - size) / RECORD_COUNT:.0f} B", ""])
    before = sum(memory_of_home(platform.home).values())
    for _ in range(ENDPOINT_COUNT):
        create_endpoint(platform)
    time.sleep(CALM_S)
    grown = sum(memory_of_home(platform.home).values()) - before
    rows.append(["per endpoint, beside its container", f"{grown / ENDPOINT_COUNT / MIB:.0f} MiB", "1 replica each"])
    print_table("memory at rest (PSS)", ["", "", ""], rows)


def insert_ended_jobs(platform: Platform) -> None:
    """Write records of jobs that have ended, as the platform keeps them, straight into its database."""
    database = Database(f"sqlite:///{platform.home / 'raymaker.sqlite3'}")
    request = {
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": BASE_IMAGE, "TrainingInputMode": "File"},
        "HyperParameters": {f"parameter-{number}": "0.01" for number in range(10)},
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }
    phases = ("Starting", "Downloading", "Training", "Uploading", "Completed")
    transitions = [{"status": name, "started_at": 1.0, "ended_at": 2.0, "message": "as it was"} for name in phases]
    ended = {"status": "Completed", "secondary": "Completed", "attempt": 1, "version": 6, "created_at": 1.0}
    ended |= {"modified_at": 2.0, "account": "000000000000", "request": request, "transitions": transitions}
    names = [f"bench-{number}" for number in range(RECORD_COUNT)]
    with database.transaction() as connection:
        rows = [{"name": name, "arn": f"arn:aws:sagemaker:::training-job/{name}", **ended} for name in names]
        connection.execute(schema.training_jobs.insert(), rows)
    database.dispose()


def stored_bytes(home: Path) -> int:
    """The size of the database's file, with everything in it that is still in its log."""
    connection = sqlite3.connect(home / "raymaker.sqlite3")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return (home / "raymaker.sqlite3").stat().st_size


def create_endpoint(platform: Platform) -> None:
    """Bring up one endpoint of one small container."""
    sagemaker, name = platform.client("sagemaker"), f"bench-{next(_numbers)}"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": SCORING_IMAGE})
    variant = {"VariantName": "main", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.t2.medium"}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    sagemaker.close()


if __name__ == "__main__":
    main()
