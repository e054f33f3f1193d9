"""The client and the command line against a whole platform: real containers, real endpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymaker.platform.client import Client
from raymaker.platform.client.errors import InvocationFailed, JobFailed, RequestRefused
from support.platform import Platform
from support.s3 import ObjectStore

TRAIN = """
import json, os, pathlib, time
rows = [float(line) for path in pathlib.Path("/opt/ml/input/data/train").iterdir() for line in path.open()]
parameters = json.loads(pathlib.Path("/opt/ml/input/config/hyperparameters.json").read_text())
for epoch in range(int(parameters.get("epochs", 3))):
    print(f"epoch={epoch} loss={1 / (epoch + 1)}", flush=True)
    time.sleep(0.1)
if "fail" in parameters:
    raise ValueError(parameters["fail"])
pathlib.Path("/opt/ml/model/sum.json").write_text(json.dumps(sum(rows)))
"""
SERVE = """
import http.server, json, os, pathlib
model = json.loads(pathlib.Path("/opt/ml/model/sum.json").read_text())

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.answer(200, json.dumps([model * number for number in json.loads(body)]).encode())
        except ValueError:
            self.answer(400, b"that is no JSON")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

print("serving", model, flush=True)
http.server.ThreadingHTTPServer(("", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An algorithm that learns the sum of its rows, and serves numbers times that."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "train.py").write_text(TRAIN)
    (folder / "serve.py").write_text(SERVE)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.csv").write_text("1\n2.5\n")
    return folder


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with Client(platform.url) as client:
        yield client


@pytest.fixture
def output(platform: Platform, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in a bucket, which this process can read as the platform does."""
    for name in ("RAYMAKER_S3_ENDPOINT_URL", "RAYMAKER_S3_ACCESS_KEY_ID", "RAYMAKER_S3_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, platform.environment[name])
    return f"s3://{s3.bucket()}/models"


def test_the_client_trains_deploys_scores_updates_and_cleans_up(
    client: Client, output: str, source: Path, rows: Path, tmp_path: Path
) -> None:
    job = client.train(
        source=source,
        entry_point="train.py",
        inputs={"train": rows},
        output=output,
        hyperparameters={"epochs": 4},
        metrics={"loss": r"loss=([0-9.]+)"},
    )
    followed = list(job.logs(follow=True))
    assert job.wait(timeout_s=60, progress=False).status == "Completed"
    assert [line for line in followed if line.startswith("epoch=")] == list(job.logs())[-4:]
    assert job.metrics()["loss"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert json.loads((job.download_model(tmp_path / "model") / "sum.json").read_text()) == 3.5

    endpoint = job.deploy()
    try:
        assert endpoint.invoke(np.array([2.0, 4.0])).json() == [7.0, 14.0]
        with pytest.raises(InvocationFailed, match="that is no JSON") as caught:
            endpoint.invoke("not json")
        assert caught.value.status == 400
        endpoint.update(instance_count=2)
        assert endpoint.describe()["ProductionVariants"][0]["CurrentInstanceCount"] == 2
        assert "serving 3.5" in list(endpoint.logs())
        assert endpoint.name in [item["EndpointName"] for item in client.endpoints()]
    finally:
        endpoint.delete(wait=True)
    with pytest.raises(RequestRefused, match="not found"):
        endpoint.invoke([1])


def test_a_job_that_fails_says_why_with_its_last_lines(
    client: Client, source: Path, rows: Path, tmp_path: Path
) -> None:
    job = client.train(
        source=source,
        entry_point="train.py",
        inputs={"train": rows},
        output=tmp_path,
        hyperparameters={"fail": "no such column: y"},
    )
    with pytest.raises(JobFailed, match="AlgorithmError") as caught:
        job.wait(timeout_s=60, progress=False)
    assert any("ValueError: no such column: y" in line for line in caught.value.log_lines)
    job.delete()


def test_the_command_line_does_the_same(platform: Platform, source: Path, rows: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        done = platform.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert run("status")["status"] == "up"
    job = run(
        *("train", "--source", str(source), "--entry-point", "train.py", "--input", f"train={rows}", "--wait"),
        *("--output", str(tmp_path / "out"), "--hp", "epochs=2", "--metric", "loss=loss=([0-9.]+)"),
    )
    name = job["TrainingJobName"]
    assert job["TrainingJobStatus"] == "Completed"
    assert "epoch=1" in platform.cli("logs", name).stdout
    assert [point["Value"] for point in run("metrics", name)] == [1.0, 0.5]
    assert run("events", name)
    assert name in platform.cli("jobs").stdout

    assert run("deploy", name, "--name", "from-the-shell")["EndpointStatus"] == "InService"
    assert (
        platform.cli("invoke", "from-the-shell", "--data", "[2]", "--content-type", "application/json").stdout
        == "[7.0]"
    )
    assert "from-the-shell" in platform.cli("endpoints").stdout
    assert run("delete", "from-the-shell", "--wait") == {"Deleted": "from-the-shell", "Kind": "endpoint"}
    assert run("delete", name) == {"Deleted": name, "Kind": "training job"}

    failed = platform.cli("describe", name)
    assert failed.returncode == 1
    assert f"no training job and no endpoint named {name}" in failed.stderr


def test_boto3_with_the_variables_of_raymaker_env_knows_the_extensions(platform: Platform) -> None:
    variables = json.loads(platform.cli("env", "--json").stdout)
    script = (
        "import boto3, os\n"
        "client = boto3.client('sagemaker', endpoint_url=os.environ['RAYMAKER_ENDPOINT_URL'], region_name='us-east-1',"
        " aws_access_key_id='x', aws_secret_access_key='x')\n"
        "try: client.deploy(TrainingJobName='nobody')\n"
        "except client.exceptions.ClientError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    assert "There is no training job nobody" in done.stdout
