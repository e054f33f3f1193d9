"""Jobs of many containers on several nodes, as tests hurt them: what they train, who lives when, where they go on."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import numpy as np

from raymaker.platform.client.connection import Connection
from support.faults import eventually
from support.jobs import ENDED, Jobs, fresh_name
from support.platform import Platform
from support.s3 import ObjectStore

ROWS, FEATURES, RATE = 240, 6, 0.1
TRAIN = f"""
import json, os, signal, socket, sys, threading, time
from pathlib import Path
import numpy as np
import raymaker_exchange

wish = json.loads(Path("/opt/ml/input/config/hyperparameters.json").read_text())
steps, pace_s, every = int(wish["steps"]), float(wish.get("pace_s", 0)), int(wish.get("every", 5))
checkpoints, stops = Path("/opt/ml/checkpoints"), []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: stops.append(1))
say = lambda *words: print(*words, flush=True)

def meet(exchange):
    "Connect to every container by its name, while each listens."
    listening = socket.create_server(("", 23456))
    def greet():
        while True:
            listening.accept()[0].sendall(socket.gethostname().encode())
    threading.Thread(target=greet, daemon=True).start()
    exchange.barrier()
    for number in range(1, exchange.world_size + 1):
        with socket.create_connection((f"algo-{{number}}", 23456), 10) as peer:
            say(f"rank={{exchange.rank}} met {{peer.recv(99).decode()}}")
    exchange.barrier()

if "fork" in wish and (worker := os.fork()):
    _, status = os.waitpid(worker, 0)
    sys.exit(f"the worker ended with {{status}}" if status else 0)

with raymaker_exchange.join() as exchange:
    rank, part = exchange.rank, f"{{exchange.rank}}-of-{{exchange.world_size}}.npy"
    if "fail_rank" in wish and rank == int(wish["fail_rank"]):
        Path("/opt/ml/output/failure").write_text("the data is sour")
        sys.exit(3)
    if "meet" in wish:
        meet(exchange)
    random = np.random.default_rng(7)
    rows = random.normal(size=({ROWS}, {FEATURES}))
    targets = rows @ np.arange(1.0, {FEATURES} + 1)
    rows, targets = rows[rank :: exchange.world_size], targets[rank :: exchange.world_size]
    state = np.zeros({FEATURES} + 1)
    stored = sorted(checkpoints.glob("step-*/0-of-*.npy"))
    if rank == 0 and stored:
        state[:] = np.load(stored[-1])
    exchange.broadcast(state)
    weights, begun = state[1:], int(state[0])
    say(f"rank={{rank}} of {{exchange.world_size}} goes on from step {{begun}}")
    while state[0] < steps:
        if "heed" in wish and (told := exchange.get_document("preemption")):
            say(f"rank={{rank}} hears that the node of {{told['machines']}} goes")
        if "ballast" in wish:
            assert (exchange.all_reduce(np.ones(int(wish["ballast"]))) == exchange.world_size).all()
        sums = np.append(rows.T @ (rows @ weights - targets), float(len(stops)))
        exchange.all_reduce(sums)
        weights -= {RATE} * sums[:-1] / {ROWS}
        state[0] += 1
        say(f"rank={{rank}} step={{int(state[0])}}")
        if checkpoints.is_dir() and state[0] % every == 0:
            folder = checkpoints / f"step-{{int(state[0]):05d}}"
            folder.mkdir(exist_ok=True)
            np.save(folder / f".{{part}}", state)
            (folder / f".{{part}}").rename(folder / part)
        if sums[-1]:
            break
        time.sleep(pace_s)
    if rank == 0:
        np.save("/opt/ml/model/state.npy", state)
"""
"""Least squares by gradient descent, each container with its share of the rows and its part of every checkpoint.

Says every step that it makes. Ends after `steps`, or where one of its processes gets SIGTERM or SIGUSR1.
"""


PART = re.compile(r"step-(\d+)/(\d+)-of-(\d+)\.npy")


def expected_weights(steps: int) -> np.ndarray:
    """What TRAIN comes to, however many containers share the rows."""
    rows = np.random.default_rng(7).normal(size=(ROWS, FEATURES))
    targets = rows @ np.arange(1.0, FEATURES + 1)
    weights = np.zeros(FEATURES)
    for _ in range(steps):
        weights -= RATE * (rows.T @ (rows @ weights - targets)) / ROWS
    return weights


def read_model(archive: bytes) -> tuple[int, np.ndarray]:
    """The steps made, and the weights, of a model that TRAIN has left."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        (member,) = (it for it in members if it.name.endswith("state.npy"))
        content = members.extractfile(member)
        assert content is not None
        state = np.load(io.BytesIO(content.read()))
    return int(state[0]), state[1:]


@dataclass
class Gangs:
    """Jobs on several nodes of one platform, whose object store is `s3`."""

    platform: Platform
    jobs: Jobs
    s3: Any
    logs: Any
    bucket: str
    source: Path
    started: float = field(default_factory=time.time)

    def create(self, instances: int = 2, containers: int = 1, *, checkpoints: bool = False, **changes: Any) -> str:
        """Create a job that runs TRAIN, and return its name. `resources` and `algorithm` add to the request's."""
        name = fresh_name("gang")
        resources = {"InstanceType": "local", "InstanceCount": instances, "VolumeSizeInGB": 1}
        resources |= {"ContainersPerInstance": containers, "PlacementStrategy": "Spread"}
        if checkpoints:
            changes["CheckpointConfig"] = {"S3Uri": f"s3://{self.bucket}/checkpoints/{name}"}
        return self.jobs.create(
            name,
            AlgorithmSpecification={
                "TrainingInputMode": "File",
                "AlgorithmSource": {"SourceUri": self.source.as_uri(), "EntryPoint": "train.py"},
            },
            ResourceConfig=resources | changes.pop("resources", {}),
            **changes,
        )

    def lines(self, name: str) -> dict[str, list[str]]:
        """The job's log lines so far, by stream."""
        group = "/aws/sagemaker/TrainingJobs"
        found: dict[str, list[str]] = {}
        try:
            streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:  # no job has said anything yet
            return found
        for stream in sorted((stream["logStreamName"] for stream in streams), key=_by_its_numbers):
            events = self.logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
            found[stream.partition("/")[2]] = [event["message"] for event in events]
        return found

    def until_said(self, name: str, words: str, count: int = 1) -> None:
        """Wait until that many log lines of the job have these words."""
        eventually(
            lambda: sum(words in line for lines in self.lines(name).values() for line in lines) >= count,
            f"{name} says {words!r} {count} times; it said {self.lines(name)}",
        )

    def resumed_from(self, name: str) -> list[int]:
        """From which step each start of the job went on, as its first container said it."""
        return [step for _, step in self.starts(name)]

    def starts(self, name: str) -> list[tuple[int, int]]:
        """Of how many containers each start of the job was that trained, and from which step it went on."""
        said = [line for lines in self.lines(name).values() for line in lines]
        found = (re.match(r"rank=0 of (\d+) goes on from step (\d+)", line) for line in said)
        return [(int(it[1]), int(it[2])) for it in found if it]

    def until_resumed(self, name: str, count: int) -> None:
        """Wait until that many starts of the job train."""
        eventually(
            lambda: len(self.resumed_from(name)) >= count,
            f"start {count} of {name} trains; {self.events(name)}; it said {self.lines(name)}",
            120,
        )

    def last_step(self, name: str) -> int:
        """The last step that the first container said."""
        said = [line for lines in self.lines(name).values() for line in lines]
        return max((int(found[1]) for line in said if (found := re.match(r"rank=0 step=(\d+)", line))), default=0)

    def stored_step(self, name: str) -> int:
        """The step of the newest checkpoint of which one start of the job has stored all parts, 0 if there is none."""
        prefix = f"checkpoints/{name}/.raymaker/manifests/"
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        parts = defaultdict(set)
        for key in (item["Key"] for item in found):
            _, attempt, start, _ = key.removeprefix(prefix).split("-")[:4]
            entries = json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())["entries"]
            for file in (file for files in entries.values() for file in files):
                if part := PART.fullmatch(file):
                    step, rank, count = map(int, part.groups())
                    parts[attempt, start, step, count].add(rank)
        return max((step for (_, _, step, count), ranks in parts.items() if len(ranks) == count), default=0)

    def events(self, name: str) -> list[str]:
        """The job's events, oldest first."""
        found, page = [], {"NextToken": ""}
        while "NextToken" in page:
            more = {"NextToken": page["NextToken"]} if page["NextToken"] else {}
            page = self.jobs.sagemaker.list_events(TrainingJobName=name, **more)
            found += page["Events"]
        return [f"{event['Kind']}: {event['Message']}" for event in found]

    def start_count(self, name: str) -> int:
        """How often the job's machines were started together, by its events."""
        return sum("Starting training on" in message for message in self.events(name))

    def model(self, name: str) -> tuple[int, np.ndarray]:
        """The steps made, and the weights, of the model that the job stored."""
        return read_model(self._output(name, "model.tar.gz"))

    def containers(self, name: str) -> list[dict[str, Any]]:
        """Who was where, as it is kept with the model."""
        found: list[dict[str, Any]] = json.loads(self._output(name, "containers.json"))["containers"]
        return found

    def assert_trained(self, name: str, steps: int | None = None, timeout_s: float = 180.0) -> dict[str, Any]:
        """It completes, once, with the right model, and leaves nothing behind. Without `steps` any number will do."""
        ended = self.jobs.finish(name, timeout_s)
        assert ended["TrainingJobStatus"] == "Completed", (ended.get("FailureReason"), self.events(name))
        ends = [it["Status"] for it in ended["SecondaryStatusTransitions"] if it["Status"] in ENDED]
        assert ends == ["Completed"], ended["SecondaryStatusTransitions"]
        made, weights = self.model(name)
        assert steps in (None, made)
        np.testing.assert_allclose(weights, expected_weights(made), rtol=1e-9)
        self.assert_nothing_left(name)
        return ended

    def assert_nothing_left(self, name: str) -> None:
        """No container, network, shared memory or folder of the job is left 30 s after its end."""
        eventually(lambda: not self.left_behind(name), f"nothing is left of {name}: {self.left_behind(name)}", 30)

    def left_behind(self, name: str) -> list[str]:
        """What there is of a job on this machine."""
        engine = self.jobs.engine
        left = [container.name for container in self.jobs.containers(name)]
        left += [network.name for network in engine.networks.list() if name in network.name]
        left += [str(path) for path in Path("/dev/shm").glob(f"raymaker-*{name}*")]
        return left + [str(path) for path in (self.platform.home / "jobs").glob(f"{name}*/*")]

    def _output(self, name: str, file: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket=self.bucket, Key=f"models/{name}/output/{file}")["Body"].read()
        return content


class Lives:
    """Watches when containers of a platform live, by the engine's own word."""

    def __init__(self, home: Path) -> None:
        self._engine = docker.from_env()
        self._stream = self._engine.events(
            decode=True, filters={"type": "container", "event": ["start", "die"], "label": [f"raymaker.home={home}"]}
        )
        self._lives: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stream.close()
        self._thread.join(10)
        self._engine.close()

    def assert_never_two(self, job: str) -> int:
        """Of no rank of a job did two containers live at once. Returns how many containers lived in all."""
        by_rank = defaultdict(list)
        for life in list(self._lives.values()):
            if life["job"] == job:
                by_rank[life["rank"]].append((life["start"], life.get("die", float("inf"))))
        for rank, lives in by_rank.items():
            ordered = sorted(lives)
            for (_, ended), (began, _) in itertools.pairwise(ordered):
                assert ended <= began, f"rank {rank} of {job} had two containers at once: {ordered}"
        return sum(len(lives) for lives in by_rank.values())

    def _watch(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for event in self._stream:
                labels = event["Actor"]["Attributes"]
                life = self._lives.setdefault(event["Actor"]["ID"], {})
                life |= {"job": labels.get("raymaker.job"), "rank": labels.get("raymaker.rank")}
                life[event["Action"]] = event["timeNano"]


@contextlib.contextmanager
def gangs_on(platform: Platform, engine: docker.DockerClient, store: ObjectStore, folder: Path) -> Iterator[Gangs]:
    """What runs jobs of many containers on a platform."""
    (folder / "train.py").write_text(TRAIN)
    bucket = store.bucket()
    with contextlib.closing(Connection(platform.url)) as connection, contextlib.closing(store.client()) as s3:
        sagemaker, logs = connection.client("sagemaker"), connection.client("logs")
        jobs = Jobs(sagemaker, engine, "", f"s3://{bucket}/models")
        try:
            yield Gangs(platform, jobs, s3, logs, bucket, folder)
        finally:
            for name in jobs.made:
                if jobs.describe(name)["TrainingJobStatus"] not in ENDED:
                    sagemaker.stop_training_job(TrainingJobName=name)
                    jobs.finish(name)


def _by_its_numbers(stream: str) -> list[int]:
    """Sort the streams of one job by container, then by the start that it was made for."""
    return [int(number) for number in re.findall(r"\d+", stream.partition("/")[2])]
