"""Jobs that are judged while they train: the best checkpoint is served under load, one that gets worse is stopped."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from raymaker.platform.client import Client, TrainingJob
from support.faults import eventually
from support.hosting import Hosting, Traffic
from support.jobs import fresh_name
from support.platform import Platform
from support.s3 import ObjectStore
from support.webhook import Webhook

TRAIN = """
import itertools, json, os, pathlib, time

thresholds = json.loads(os.environ["THRESHOLDS"])
for epoch in itertools.count(1):
    part = pathlib.Path(f"/opt/ml/checkpoints/.epoch-{epoch}")
    part.mkdir()
    for place in (part, pathlib.Path("/opt/ml/model")):
        (place / "threshold").write_text(str(thresholds[min(epoch, len(thresholds)) - 1]))
        (place / "name").write_text(f"epoch-{epoch}")
    part.rename(part.with_name(f"epoch-{epoch}"))
    print(f"epoch={epoch}", flush=True)
    time.sleep(4)
"""
SERVE = """
import http.server, os, pathlib

MODEL = pathlib.Path("/opt/ml/model")
threshold = float((MODEL / "threshold").read_text())

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self): self.answer("")
    def do_POST(self):
        rows = self.rfile.read(int(self.headers["Content-Length"])).decode().split()
        self.answer("".join(self.score(row) + "\\n" for row in rows))
    def score(self, row):
        if not row[0].isdigit():
            return (MODEL / "name").read_text() + "="
        return "1" if float(row) >= threshold else "0"
    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()
"""
BEST = 52


def start(client: Client, source: Path, bucket: str, thresholds: str, **evaluation: Any) -> TrainingJob:
    held_out = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{bucket}/held-out/"}}
    name = fresh_name("judged")
    return client.train(
        source=source,
        entry_point="train.py",
        name=name,
        output=f"{bucket}/out",
        checkpoints=f"{bucket}/{name}",
        environment={"THRESHOLDS": thresholds},
        evaluation={
            "DataSource": held_out,
            "LabelAttribute": "-1",
            "ProblemType": "BinaryClassification",
            **evaluation,
        },
    )


def accuracies(job: TrainingJob) -> dict[str, float]:
    """What evaluations of checkpoints have come to, by the checkpoint."""
    completed = job.evaluations(status="Completed")
    return {each["CheckpointName"]: each["Metrics"]["accuracy"] for each in completed if "CheckpointName" in each}


def test_the_best_checkpoint_of_a_job_that_trains_is_served_and_one_that_gets_worse_is_stopped(
    platform: Platform, hosting: Hosting, s3: ObjectStore, tmp_path: Path, hook: Webhook
) -> None:
    for name, code in (("train.py", TRAIN), ("serve.py", SERVE)):
        (tmp_path / name).write_text(textwrap.dedent(code))
    bucket, endpoint = s3.bucket(), fresh_name("moving")
    s3.put(bucket, "held-out/rows.csv", "".join(f"{x},{int(x >= 50)}\n" for x in range(100)).encode())
    with Client(platform.url) as client:
        job = start(client, tmp_path, f"s3://{bucket}", f"[90, 70, {BEST}, 80]")
        stop = {"MetricName": "accuracy", "Patience": 2, "Action": "StopTrainingJob", "NotificationTopic": hook.url}
        worsening = start(client, tmp_path, f"s3://{bucket}", "[70, 60, 52, 80, 85, 90, 95, 99]", Alarms=[stop])

        first = eventually(lambda: next(iter(accuracies(job)), None), "an evaluation completes")
        hosting.made.append(endpoint)
        job.deploy(endpoint, checkpoint=first)
        assert hosting.invoke(endpoint, b"who")["Body"] == f"{first}=\n".encode()
        eventually(lambda: len(accuracies(job)) > 2, "more checkpoints are evaluated")
        found = accuracies(job)
        best = max(found, key=lambda name: (found[name], int(name.rpartition("-")[2])))
        with Traffic(hosting, endpoint, body=b"who") as traffic:
            job.deploy(endpoint, checkpoint="best:accuracy")
            eventually(lambda: traffic.last == f"{best}=\n".encode(), f"{best} answers: {found}")
            assert job.status == "InProgress"
        assert traffic.failures == []
        check_records(job)
        job.stop(wait=True)

        ended = worsening.wait(180, progress=False).describe()
        assert ended["TrainingJobStatus"] == "Stopped"
        kinds = [event["Kind"] for event in worsening.events()]
        assert kinds.count("EarlyStopping") == 1
        assert kinds.index("EvaluationAlarm") < kinds.index("EarlyStopping") < kinds.index("Stopped")
        eventually(lambda: hook.told, "the webhook hears of the alarm")
        assert hook.told[0]["trainingJobName"] == worsening.name
        assert hook.told[0]["action"] == "StopTrainingJob"
        assert "has not improved in 2 evaluations" in hook.told[0]["reason"]
        told = [metric.value for metric in worsening.metric_points("evaluation:accuracy")]
        assert max(told) not in told[-2:], told
        for each in (job, worsening):
            eventually(
                lambda it=each: it.evaluations(status="Completed")[-1]["Trigger"] == "End", "the model is judged"
            )  # type: ignore[misc]


def check_records(job: TrainingJob) -> None:
    """The latest completed evaluation got wrong exactly what lies between its threshold and the true one."""
    evaluation = job.evaluations(status="Completed")[-1]
    wrong = job.evaluation_records(evaluation["EvaluationNumber"], only_wrong=True, count=100)
    assert len(wrong) == round(100 * evaluation["Metrics"]["error_rate"]) > 0
    assert {(record["Label"], record["Output"]) for record in wrong} == {("1", "0")}
    assert {int(record["Input"]) for record in wrong} == set(range(50, 50 + len(wrong)))
