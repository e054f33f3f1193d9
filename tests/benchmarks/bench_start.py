"""From submitting a training job to the first line of its own code, beside `docker run` of the same image.

Warm: a container of the image waits inside its start. Cold: only a machine waits, and the image is there.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from typing import Any

import docker

from support.engine import BASE_IMAGE
from support.measure import percentile, print_table
from support.platform import Platform, running_platform

ROUNDS = 21
SAY_TIME = ["date", "+%s.%N"]
GROUP = "/aws/sagemaker/TrainingJobs"
PAUSE_S = 1.5
"""Before each warm job: as long as it takes until a container waits again, and more."""


def main() -> None:
    """Run all in turns and print the table."""
    engine = docker.from_env()
    with ExitStack() as stack:
        output = stack.enter_context(tempfile.TemporaryDirectory())
        kinds = {
            "warm": stack.enter_context(running_platform(driver="docker")),
            "cold": stack.enter_context(running_platform(driver="docker", standby_containers=0)),
        }
        for platform in kinds.values():
            for name in ("first", "second"):
                submit(platform, name, output)
        rows: dict[str, list[tuple[float, float]]] = {"docker run": [], **{kind: [] for kind in kinds}}
        for number in range(ROUNDS):
            time.sleep(PAUSE_S)
            rows["warm"].append(submit(kinds["warm"], f"job-{number}", output))
            time.sleep(PAUSE_S)  # until another container waits, which is work
            rows["cold"].append(submit(kinds["cold"], f"job-{number}", output))
            rows["docker run"].append(run_directly(engine))
        print_rows(rows)
    engine.close()


def run_directly(engine: docker.DockerClient) -> tuple[float, float]:
    """Seconds to the container's first line, and to its end, through the engine's API alone."""
    begun = time.time()
    said = engine.containers.run(BASE_IMAGE, SAY_TIME, network_mode="none", remove=True)
    return float(said) - begun, time.time() - begun


def submit(platform: Platform, name: str, output: str) -> tuple[float, float]:
    """Seconds to the job's first line, and to its end as a client that polls sees it."""
    with ExitStack() as stack:
        sagemaker, logs = (platform.client(service) for service in ("sagemaker", "logs"))
        stack.callback(sagemaker.close)
        stack.callback(logs.close)
        sagemaker.list_training_jobs(MaxResults=1)  # what a client does once: its connection
        return _submit(sagemaker, logs, name, output)


def _submit(sagemaker: Any, logs: Any, name: str, output: str) -> tuple[float, float]:
    begun = time.time()
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn="arn:aws:iam::000000000000:role/bench",
        AlgorithmSpecification={
            "TrainingImage": BASE_IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": SAY_TIME[:1],
            "ContainerArguments": SAY_TIME[1:],
        },
        OutputDataConfig={"S3OutputPath": f"file://{output}/{id(sagemaker)}"},
        ResourceConfig={"InstanceType": "ml.t2.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    while (job := sagemaker.describe_training_job(TrainingJobName=name))["TrainingJobStatus"] == "InProgress":
        time.sleep(0.02)
    end = time.time()
    if job["TrainingJobStatus"] != "Completed":
        raise RuntimeError(f"{name} ended as {job['TrainingJobStatus']}: {job.get('FailureReason')}")
    (stream,) = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")["logStreams"]
    events = logs.get_log_events(logGroupName=GROUP, logStreamName=stream["logStreamName"], startFromHead=True)
    return float(events["events"][0]["message"]) - begun, end - begun


def print_rows(rows: dict[str, list[tuple[float, float]]]) -> None:
    """Print medians and tails, each beside the floor."""
    table = []
    for kind in ("warm", "cold"):
        for index, label in enumerate(("to the first line of user code", "to the end, as a client sees it")):
            for word, percent in (("median", 50.0), ("p99", 99.0)):
                mine, least = (percentile([row[index] for row in rows[of]], percent) for of in (kind, "docker run"))
                cells = [f"{mine * 1e3:.0f} ms", f"{least * 1e3:.0f} ms", f"{mine / least:.2f}"]
                table.append([f"{kind}, {label}, {word}", *cells])
    print_table(f"start of a training job, {ROUNDS} rounds", ["", "raymaker", "docker run", "ratio"], table)


if __name__ == "__main__":
    main()
