"""From submitting a training job to the first line of its own code, beside `docker run` of the same image."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import docker

from support.engine import BASE_IMAGE
from support.measure import median, percentile, print_table
from support.platform import running_platform

ROUNDS = 9
SAY_TIME = ["date", "+%s.%N"]
GROUP = "/aws/sagemaker/TrainingJobs"


def main() -> None:
    """Run both in turns and print the table."""
    engine = docker.from_env()
    with tempfile.TemporaryDirectory() as output, running_platform(driver="docker") as platform:
        sagemaker, logs = platform.client("sagemaker"), platform.client("logs")
        submit(sagemaker, logs, "warm-up", output)
        rows: dict[str, list[float]] = {"floor": [], "first": [], "floor_end": [], "end": []}
        for number in range(ROUNDS):
            first, end = run_directly(engine)
            rows["floor"].append(first)
            rows["floor_end"].append(end)
            first, end = submit(sagemaker, logs, f"job-{number}", output)
            rows["first"].append(first)
            rows["end"].append(end)
        print_rows(rows)
        sagemaker.close()
        logs.close()
    engine.close()


def run_directly(engine: docker.DockerClient) -> tuple[float, float]:
    """Seconds to the container's first line, and to its end, through the engine's API alone."""
    begun = time.time()
    said = engine.containers.run(BASE_IMAGE, SAY_TIME, network_mode="none", remove=True)
    return float(said) - begun, time.time() - begun


def submit(sagemaker: Any, logs: Any, name: str, output: str) -> tuple[float, float]:
    """Seconds to the job's first line, and to its end as a client that polls sees it."""
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
        OutputDataConfig={"S3OutputPath": f"file://{output}"},
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


def print_rows(rows: dict[str, list[float]]) -> None:
    """Print medians and tails, each beside its floor."""
    table = []
    for label, ours, floor in (
        ("to the first line of user code", rows["first"], rows["floor"]),
        ("to the end (submit to Completed)", rows["end"], rows["floor_end"]),
    ):
        for word, percent in (("median", 50.0), ("p99", 99.0)):
            mine, least = percentile(ours, percent), percentile(floor, percent)
            table.append([f"{label}, {word}", f"{mine * 1e3:.0f} ms", f"{least * 1e3:.0f} ms", f"{mine / least:.2f}"])
    print_table(f"start of a training job, {ROUNDS} rounds", ["", "raymaker", "docker run", "ratio"], table)
    print(f"first line, above the floor: {(median(rows['first']) - median(rows['floor'])) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
