"""Jobs that are changed while they train, on a whole platform: learning rate, code, image, machines, and no model."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from botocore.exceptions import ClientError

from raymaker.platform.client import Client, TrainingJob, UpdateFailed
from raymaker.platform.client.connection import Connection
from support.faults import command_line, eventually, platform_processes
from support.jobs import job_containers
from support.platform import ROOT, Platform
from support.s3 import ObjectStore

EXAMPLE = ROOT / "examples" / "listening_source"
SUPERVISOR = "ray::Machine"
DATA = "data/train/train.csv"


class Changed:
    """One job that runs the example on real rows, and what can be seen of it."""

    def __init__(self, client: Client, engine: docker.DockerClient, s3: ObjectStore, rows: Path) -> None:
        self.client = client
        self.engine = engine
        self.s3 = s3
        self.bucket = s3.bucket()
        store = s3.client()
        store.upload_file(str(rows / "train" / "train.csv"), self.bucket, DATA)
        store.close()
        self.jobs: list[TrainingJob] = []

    def train(self, **changes: Any) -> TrainingJob:
        settings: dict[str, Any] = {
            "source": EXAMPLE,
            "entry_point": "train.py",
            "inputs": {"train": f"s3://{self.bucket}/data/train"},
            "output": f"s3://{self.bucket}/out",
            "checkpoints": f"s3://{self.bucket}/checkpoints",
            "hyperparameters": {"epochs": 1_000_000, "learning_rate": 0.001, "pace_s": 0.1},
            "metrics": {"loss": r"epoch=\d+ loss=([0-9.]+)", "rate": "epoch=.* rate=([0-9.e-]+)"},
            **changes,
        }
        job = self.client.train(**settings)
        self.jobs.append(job)
        self.until_losses(job, 5)
        return job

    def until_losses(self, job: TrainingJob, count: int) -> list[float]:
        """Wait until the job has told so many losses."""
        return eventually(
            lambda: it if len(it := [point.value for point in job.metric_points("loss")]) >= count else None,
            lambda: f"{job.name} tells {count} losses; it said: {list(job.logs())[-5:]}",
        )

    def until_said(self, job: TrainingJob, words: str, count: int = 1) -> None:
        """Wait until the job's log has these words so many times."""
        eventually(
            lambda: sum(words in line for line in job.logs()) >= count,
            lambda: f"{job.name} says {words!r}; it said: {list(job.logs())[-5:]}",
        )

    def containers(self, job: TrainingJob) -> set[str]:
        """The ids of the job's containers."""
        return {str(container.id) for container in job_containers(self.engine, job.name)}

    def bytes_fetched(self) -> int:
        """How many bytes of training data were fetched in all, or more."""
        store = self.s3.client()
        size = store.head_object(Bucket=self.bucket, Key=DATA)["ContentLength"]
        store.close()
        return size * self.s3.read_count(f"{self.bucket}/{DATA}")

    def stored(self, job: TrainingJob) -> list[str]:
        """What lies where the job stores its model."""
        store = self.s3.client()
        found = store.list_objects_v2(Bucket=self.bucket, Prefix=f"out/{job.name}/")
        store.close()
        return [item["Key"] for item in found.get("Contents", [])]


@pytest.fixture
def changed(
    platform: Platform, engine: docker.DockerClient, s3: ObjectStore, base_image: str, breast_cancer: Path
) -> Iterator[Changed]:
    with Client(platform.url) as client:
        made = Changed(client, engine, s3, breast_cancer)
        yield made
        for job in made.jobs:
            if job.status == "InProgress":
                job.stop()
        for job in made.jobs:
            job.wait(progress=False)


def test_a_learning_rate_changes_in_the_same_container_also_when_its_supervisor_is_killed_before_it_was_told(
    platform: Platform, changed: Changed
) -> None:
    job = changed.train()
    container = changed.containers(job)
    assert len(container) == 1
    slow = changed.until_losses(job, 12)
    first = job.update(hyperparameters={"learning_rate": 0.05})
    assert (first["Status"], first["HeardByRanks"]) == ("Applied", [0])
    fast = changed.until_losses(job, len(slow) + 25)
    before, after = slow[1] - slow[-1], fast[-12] - fast[-1]
    assert after > 5 * before > 0, f"the loss fell by {before} in 11 epochs, after the change by {after}"

    supervisors = [pid for pid in platform_processes(platform.home) if SUPERVISOR in command_line(pid)]
    assert supervisors
    for pid in supervisors:  # the job's machine, and those that wait
        os.kill(pid, signal.SIGSTOP)
    second = job.update(hyperparameters={"learning_rate": 0.1}, wait=False)
    with pytest.raises(ClientError, match="ResourceInUse"):
        platform_call(platform, job, {"HyperParameters": {"learning_rate": "9"}})
    for pid in supervisors:
        os.kill(pid, signal.SIGKILL)
    assert job.wait_for_update(second["Revision"], 90)["HeardByRanks"] == [0]
    changed.until_said(job, "rate=0.1")
    assert changed.containers(job) == container
    said = [line for line in job.logs() if "goes on with revision" in line]
    assert said == ["rank=0 goes on with revision 1, rate=0.05", "rank=0 goes on with revision 2, rate=0.1"]

    kinds = [event["Kind"] for event in job.events()]
    assert (kinds.count("UpdateRequested"), kinds.count("UpdateApplied")) == (2, 2)
    eventually(lambda: "MetricsAfter" in job.updates()[-1], "the numbers after it are told")
    measured = [event["Message"] for event in job.events() if event["Kind"] == "UpdateMeasured"]
    assert "learning_rate from 0.05 to 0.1. Asked for by local. loss was" in measured[-1]
    assert "rate was 0.05 before, 0.1 next" in measured[-1]
    shown = platform.cli("describe", job.name).stdout
    assert "hyperparameter learning_rate from 0.001 to 0.05" in shown
    assert job.describe()["HyperParameters"]["learning_rate"] == "0.1"


def test_code_is_replaced_at_run_time_then_the_image_with_the_data_that_is_there_then_nothing_is_kept(
    platform: Platform, changed: Changed, steps_image: str, tmp_path: Path
) -> None:
    job = changed.train()
    container, fetched = changed.containers(job), changed.bytes_fetched()
    assert fetched > 0
    code = tmp_path / "code"
    shutil.copytree(EXAMPLE, code)
    step = (code / "step.py").read_text()
    (code / "step.py").write_text(step.replace('"logistic regression"', '"regression anew"'))
    assert job.update(source=code)["Status"] == "Applied"
    changed.until_said(job, "the step is regression anew")
    assert changed.containers(job) == container
    with pytest.raises(UpdateFailed, match="nowhere"):
        job.update(source=f"s3://{changed.bucket}/nowhere")
    changed.until_losses(job, 20)
    with pytest.raises(ClientError, match="IfNotHeard must be Restart"):
        platform_call(platform, job, {"TrainingImage": steps_image})
    with pytest.raises(UpdateFailed, match="no-such-image"):
        job.update(image="no-such-image:anywhere", restart=True)
    assert changed.containers(job) == container

    job.update(image=steps_image, hyperparameters={"steps": 100_000}, restart=True)
    changed.until_said(job, "step=5 loss=95.5")
    replaced = changed.containers(job)
    assert len(replaced) == 1
    assert replaced.isdisjoint(container)
    assert changed.bytes_fetched() == fetched, "the data was there"
    assert sum(line.count(",") > 20 for line in job.logs()) > 100, "the new image shows the rows that it found"
    statuses = [update["Status"] for update in job.updates()]
    assert statuses == ["Applied", "Failed", "Failed", "Applied"]
    with pytest.raises(UpdateFailed, match="no container asked"):
        job.update(hyperparameters={"steps": 3}, hear_timeout_s=1)
    assert changed.containers(job) == replaced

    job.stop(delete_model_data=True)
    job.wait(progress=False)
    assert job.status == "Stopped"
    assert job.describe()["ModelArtifacts"]["S3ModelArtifacts"] == ""
    assert not [key for key in changed.stored(job) if "model" in key]


def test_another_instance_count_goes_on_from_the_last_checkpoint_and_all_machines_hear(changed: Changed) -> None:
    job = changed.train()
    eventually(job.checkpoints, "a checkpoint is stored")
    job.update(instance_count=2, restart=True)
    description = job.describe()
    assert (description["ResourceConfig"]["InstanceCount"], description["Revision"]) == (2, 1)
    begun = eventually(lambda: [line for line in job.logs() if "rank=1 has" in line], "two machines train")
    assert int(begun[0].rpartition(" ")[2]) >= 10, "it goes on from a checkpoint"
    pair = changed.containers(job)
    assert len(pair) == 2
    assert job.update(hyperparameters={"learning_rate": 0.02})["HeardByRanks"] == [0]
    changed.until_said(job, "goes on with revision 2, rate=0.02", 2)
    assert changed.containers(job) == pair
    fetched = changed.bytes_fetched()
    assert fetched > 0
    job.update(hyperparameters={"learning_rate": 0.03}, restart=True, hear_timeout_s=0)
    changed.until_said(job, "goes on from epoch", 5)
    begun_at = {line.rpartition(" ")[2] for line in job.logs() if "goes on from epoch" in line} - {
        "0",
        begun[0].rpartition(" ")[2],
    }
    assert len(begun_at) == 1, "both go on from the same checkpoint"
    assert len(changed.containers(job)) == 2
    assert changed.containers(job).isdisjoint(pair)
    assert changed.bytes_fetched() == fetched
    eventually(lambda: list(job.metric_points("rate"))[-1].value == 0.03, "the new machines use the new rate")


def platform_call(platform: Platform, job: TrainingJob, changes: dict[str, Any]) -> None:
    """Ask with boto3 alone, given the extensions, as a client of another language would."""
    connection = Connection(platform.url)
    try:
        connection.client("sagemaker").update_training_job(TrainingJobName=job.name, **changes)
    finally:
        connection.close()
