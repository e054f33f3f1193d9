"""From submitting a training job to the first line of its own code, beside `docker run` of the same image.

Warm: a container of the image waits inside its start. Cold: only a machine waits, and the image is there. Gangs have
two machines, beside two `docker run` at once: those that wait, with and without containers that do, and one made anew.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import docker

from raymaker.platform.client.connection import Connection
from support.engine import BASE_IMAGE
from support.faults import command_line, platform_processes
from support.measure import percentile, print_table
from support.platform import Platform, running_platform

ROUNDS = 21
GANGS: Mapping[str, tuple[int, Mapping[str, object]]] = {
    "gang, warm": (20, {"warm_gangs": 1, "standby_containers": 1}),
    "gang, cold": (20, {"warm_gangs": 1, "standby_containers": 0}),
    "gang, made anew": (5, {}),
}
"""How many rounds each has, and what its platform is told."""
TWO = "docker run of two"
GANG_PAUSE_S = 15
"""Before each gang: the one before it has ended, and after this time at the earliest another waits, which is work."""
WATCHER = "ray::PreemptionWatcher"
"""What Ray Train makes last of a gang."""
GANG_TIMEOUT_S = 120
SETTLE_S = 4
POLL_S = 0.5
"""Between two looks at a job: nobody asks `docker run` either how far it is while its container starts."""
WAITED = "that waited"
"""What a start says of machines that waited for it."""
SAY_TIME = ["date", "+%s.%N"]
GROUP = "/aws/sagemaker/TrainingJobs"
SINGLE: Mapping[str, Mapping[str, object]] = {"warm": {"standby_containers": 1}, "cold": {"standby_containers": 0}}
PAUSE_S = 1.5
"""Before each job and each `docker run`: what was before has ended, and a container waits again, which is work."""


def main() -> None:
    """Run all in turns and print the table."""
    with ExitStack() as stack:
        engine = stack.enter_context(closing(docker.from_env()))
        measure_single(engine)
        measure_gangs(engine)


def measure_single(engine: docker.DockerClient) -> None:
    """Run jobs of one machine and `docker run` in turns, on one platform after the other."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for kind, settings in SINGLE.items():
        with tempfile.TemporaryDirectory() as output, running_platform(driver="docker", **settings) as platform:
            for name in ("first", "second"):
                submit(platform, name, output)
            for number in range(ROUNDS):
                time.sleep(PAUSE_S)
                rows.setdefault(kind, []).append(submit(platform, f"job-{number}", output))
                time.sleep(PAUSE_S)
                rows.setdefault(f"docker run beside {kind}", []).append(run_directly(engine))
    print_rows(rows, {kind: f"docker run beside {kind}" for kind in SINGLE})


def measure_gangs(engine: docker.DockerClient) -> None:
    """Run gangs of two beside two `docker run` at once, and print when each of their steps was told of."""
    rows: dict[str, list[tuple[float, float]]] = {TWO: []}
    for kind, (rounds, settings) in GANGS.items():
        parts: list[Mapping[str, float]] = []
        with tempfile.TemporaryDirectory() as output, running_platform(driver="docker", **settings) as platform:
            for number in range(rounds + 1):
                await_gang(platform, waits=bool(settings))
                found = submit(platform, f"gang-{number}", output, machines=2)
                told = parts_of(platform, f"gang-{number}")
                if any(WAITED in part for part in told) != bool(settings):
                    raise RuntimeError(f"{kind}: this is not how gang-{number} started: {told}")
                if number:  # the first loads what later ones find
                    rows.setdefault(kind, []).append(found)
                    parts.append(told)
                    with ThreadPoolExecutor(2) as threads:
                        firsts, ends = zip(*threads.map(run_directly, [engine] * 2), strict=True)
                    rows[TWO].append((max(firsts), max(ends)))
        medians = [(part, percentile([each[part] for each in parts if part in each], 50)) for part in parts[0]]
        table = [[part, f"{seconds * 1e3:.0f} ms"] for part, seconds in medians]
        print_table(f"{kind}: its steps, since the job was accepted, median", ["", ""], table)
    print_rows(rows, dict.fromkeys(GANGS, TWO))


def await_gang(platform: Platform, *, waits: bool) -> None:
    """Return when the next gang may come: where one `waits`, once that is ready."""
    time.sleep(GANG_PAUSE_S)
    deadline = time.monotonic() + GANG_TIMEOUT_S
    while waits and not any(WATCHER in command_line(pid) for pid in platform_processes(platform.home)):
        if time.monotonic() > deadline:
            raise RuntimeError("no gang waits")
        time.sleep(0.2)
    time.sleep(SETTLE_S)


def parts_of(platform: Platform, name: str) -> Mapping[str, float]:
    """Seconds from a job's first event to each of them, by their messages."""
    with closing(Connection(platform.url)) as connection:
        events = connection.client("sagemaker").list_events(TrainingJobName=name)["Events"]
    times = {event["Message"]: event["Time"].timestamp() for event in reversed(events)}
    begun = min(times.values())
    return {message: moment - begun for message, moment in sorted(times.items(), key=lambda each: each[1])}


def run_directly(engine: docker.DockerClient) -> tuple[float, float]:
    """Seconds to the container's first line, and to its end, through the engine's API alone."""
    begun = time.time()
    said = engine.containers.run(BASE_IMAGE, SAY_TIME, network_mode="none", remove=True)
    return float(said) - begun, time.time() - begun


def submit(platform: Platform, name: str, output: str, machines: int = 1) -> tuple[float, float]:
    """Seconds to the first line of each of a job's containers, and until the job's end was on record."""
    with ExitStack() as stack:
        sagemaker, logs = (platform.client(service) for service in ("sagemaker", "logs"))
        stack.callback(sagemaker.close)
        stack.callback(logs.close)
        sagemaker.list_training_jobs(MaxResults=1)  # what a client does once: its connection
        return _submit(sagemaker, logs, name, output, machines)


def _submit(sagemaker: Any, logs: Any, name: str, output: str, machines: int) -> tuple[float, float]:
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
        ResourceConfig={"InstanceType": "ml.t2.medium", "InstanceCount": machines, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    while (job := sagemaker.describe_training_job(TrainingJobName=name))["TrainingJobStatus"] == "InProgress":
        time.sleep(POLL_S)
    end = job["LastModifiedTime"].timestamp()
    if job["TrainingJobStatus"] != "Completed":
        raise RuntimeError(f"{name} ended as {job['TrainingJobStatus']}: {job.get('FailureReason')}")
    streams = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")["logStreams"]
    if len(streams) != machines:
        raise RuntimeError(f"{name} has the logs {streams}")
    names = [stream["logStreamName"] for stream in streams]
    found = [logs.get_log_events(logGroupName=GROUP, logStreamName=each, startFromHead=True) for each in names]
    return max(float(each["events"][0]["message"]) for each in found) - begun, end - begun


def print_rows(rows: Mapping[str, Sequence[tuple[float, float]]], floors: Mapping[str, str]) -> None:
    """Print medians and tails, each beside its floor."""
    table = []
    for kind, floor in floors.items():
        for index, label in enumerate(("to the first line of user code", "to the end")):
            for word, percent in (("median", 50.0), ("p99", 99.0)):
                mine, least = (percentile([row[index] for row in rows[of]], percent) for of in (kind, floor))
                cells = [f"{mine * 1e3:.0f} ms", f"{least * 1e3:.0f} ms", f"{mine / least:.2f}"]
                table.append([f"{kind}, {label}, {word} of {len(rows[kind])}", *cells])
    print_table("start of a training job", ["", "raymaker", "docker run", "ratio"], table)


if __name__ == "__main__":
    main()
