"""Many jobs: how many one-line jobs a minute beside a saturated `docker run --rm`, and what a long line leaves behind.

scripts/bench jobs                                        a line of 200
PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_jobs.py --jobs 1000
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker

from support.engine import BASE_IMAGE
from support.measure import MIB, median, memory_of_home, name_of, print_table
from support.platform import Platform, running_platform

ROUNDS = 5
ROUND_COUNT = 10
"""Jobs, and containers, of each round."""
AT_ONCE = 2
"""Jobs that the platform has room for, and containers that the loop beside it starts at a time."""
WARM_UP_COUNT = 10
CALM_S = 10.0
POLL_S = 0.1
ENDED = ("Completed", "Failed", "Stopped")


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200, help="how many wait in line at once")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds beside docker; 0: none")
    asked = parser.parse_args()
    engine = docker.from_env()
    with tempfile.TemporaryDirectory() as output, running_platform(driver="docker", cpus=AT_ONCE) as platform:
        sagemaker = platform.client("sagemaker")
        run_jobs(sagemaker, "warm-up", WARM_UP_COUNT, output)
        if asked.rounds:
            throughput(sagemaker, asked.rounds, output)
        growth(platform, engine, sagemaker, asked.jobs, output)
        sagemaker.close()
    engine.close()


def throughput(sagemaker: Any, rounds: int, output: str) -> None:
    """Print jobs a minute beside containers a minute, by turns."""
    ours, floor = [], []
    for number in range(rounds):
        floor.append(ROUND_COUNT / run_containers() * 60)
        ours.append(ROUND_COUNT / run_jobs(sagemaker, f"round-{number}", ROUND_COUNT, output) * 60)
    ratios = sorted(mine / least for mine, least in zip(ours, floor, strict=True))
    print_table(
        f"one-line jobs, {AT_ONCE} at a time, median of {rounds} rounds of {ROUND_COUNT}",
        ["", "a minute", "of the floor"],
        [
            ["docker run --rm", f"{median(floor):.0f}", "1"],
            ["training jobs", f"{median(ours):.0f}", f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"],
        ],
    )


def run_containers() -> float:
    """Seconds for a round of `docker run --rm`, as many at a time as the platform runs jobs."""
    command = ["docker", "run", "--rm", "--network=none", BASE_IMAGE, "true"]
    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda _: subprocess.run(command, check=True), range(ROUND_COUNT)))
    return time.perf_counter() - begun


def run_jobs(sagemaker: Any, prefix: str, count: int, output: str) -> float:
    """Seconds until so many jobs have ended that were submitted one after the other."""
    begun = time.perf_counter()
    create_jobs(sagemaker, prefix, count, output)
    wait_for_all(sagemaker, prefix, count)
    return time.perf_counter() - begun


def create_jobs(sagemaker: Any, prefix: str, count: int, output: str) -> None:
    """Submit jobs of one line each, as fast as they are taken."""
    for number in range(count):
        sagemaker.create_training_job(
            TrainingJobName=f"{prefix}-{number}",
            RoleArn="arn:aws:iam::000000000000:role/bench",
            AlgorithmSpecification={
                "TrainingImage": BASE_IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["true"],
            },
            OutputDataConfig={"S3OutputPath": f"file://{output}"},
            ResourceConfig={"InstanceType": "local", "InstanceCount": 1, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )


def wait_for_all(sagemaker: Any, prefix: str, count: int) -> None:
    """Look until no job of a prefix is under way. Raises RuntimeError where not all were completed."""
    while list_jobs(sagemaker, prefix, "InProgress", limit=1):
        time.sleep(POLL_S)
    ends = Counter(job["TrainingJobStatus"] for job in list_jobs(sagemaker, prefix))
    if ends != {"Completed": count}:
        raise RuntimeError(f"{count} jobs {prefix}-* ended as {dict(ends)}")


def list_jobs(sagemaker: Any, prefix: str, status: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
    """Summaries of the jobs of a prefix, all of them where there is no limit."""
    chosen = {"NameContains": f"{prefix}-", **({"StatusEquals": status} if status is not None else {})}
    if limit is not None:
        found: list[dict[str, Any]] = sagemaker.list_training_jobs(MaxResults=limit, **chosen)["TrainingJobSummaries"]
        return found
    pages = sagemaker.get_paginator("list_training_jobs").paginate(PaginationConfig={"PageSize": 100}, **chosen)
    return [job for page in pages for job in page["TrainingJobSummaries"]]


def growth(platform: Platform, engine: docker.DockerClient, sagemaker: Any, count: int, output: str) -> None:
    """Print what a long line takes to be accepted, told of and run, and what it leaves of processes and memory."""
    time.sleep(CALM_S)
    before = Standing(platform, engine)
    begun = time.perf_counter()
    create_jobs(sagemaker, "line", count, output)
    created_s = time.perf_counter() - begun
    told_ms = duration_ms(lambda: sagemaker.describe_training_job(TrainingJobName=f"line-{count - 1}"))
    listed_ms = duration_ms(lambda: sagemaker.list_training_jobs(MaxResults=100))
    wait_for_all(sagemaker, "line", count)
    ran_s = time.perf_counter() - begun
    time.sleep(CALM_S)
    after = Standing(platform, engine)
    print_table(
        f"a line of {count} jobs, {AT_ONCE} at a time",
        ["", ""],
        [
            ["CreateTrainingJob, one after the other", f"{count / created_s:.0f}/s"],
            ["DescribeTrainingJob of the last", f"{told_ms:.1f} ms"],
            ["ListTrainingJobs of 100", f"{listed_ms:.1f} ms"],
            ["jobs ended a minute", f"{count / ran_s * 60:.0f}"],
        ],
    )
    print_table(f"what {count} jobs leave", ["", "before", "after", "a job"], after.beside(before, count))


class Standing:
    """What of a platform stands at one moment, by the names of its processes."""

    def __init__(self, platform: Platform, engine: docker.DockerClient) -> None:
        self.memory: Counter[str] = Counter()
        self.descriptors: Counter[str] = Counter()
        memory = memory_of_home(platform.home)
        for pid, size in memory.items():
            name = name_of(pid)
            self.memory[name] += size
            self.descriptors[name] += count_descriptors(pid)
        self.process_count = len(memory)
        labels = {"label": f"raymaker.home={platform.home}"}
        self.container_count = len(engine.containers.list(all=True, filters=labels))
        self.file_count = sum(1 for path in platform.home.rglob("*") if path.is_file())

    def beside(self, before: Standing, count: int) -> list[list[str]]:
        """Rows for a table, this standing the later one."""
        rows = [
            ["processes", *self._numbers(before.process_count, self.process_count, count)],
            ["containers", *self._numbers(before.container_count, self.container_count, count)],
            ["files in the home", *self._numbers(before.file_count, self.file_count, count)],
            ["descriptors", *self._numbers(before.descriptors.total(), self.descriptors.total(), count)],
        ]
        rows += [
            [f"descriptors of {name}", *self._numbers(before.descriptors[name], self.descriptors[name], count)]
            for name in self.descriptors
            if abs(self.descriptors[name] - before.descriptors[name]) * 10 > count
        ]
        rows.append(["memory", *self._sizes(before.memory.total(), self.memory.total(), count)])
        names = sorted(self.memory | before.memory, key=lambda name: before.memory[name] - self.memory[name])
        return rows + [
            [f"memory of {name}", *self._sizes(before.memory[name], self.memory[name], count)] for name in names
        ]

    @staticmethod
    def _numbers(before: int, after: int, count: int) -> list[str]:
        return [str(before), str(after), f"{(after - before) / count:+.2f}"]

    @staticmethod
    def _sizes(before: int, after: int, count: int) -> list[str]:
        return [f"{before / MIB:.0f} MiB", f"{after / MIB:.0f} MiB", f"{(after - before) / 1024 / count:+.1f} KiB"]


def count_descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def duration_ms(work: Any) -> float:
    """Milliseconds that a call takes."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


if __name__ == "__main__":
    main()
