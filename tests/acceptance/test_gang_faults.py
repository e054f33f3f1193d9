"""Jobs of many containers lose their parts in every phase; each reaches one good end, from what was stored."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from support.faults import eventually
from support.gang_faults import GangFaults
from support.gangs import Gangs, Lives

pytestmark = [pytest.mark.usefixtures("both_nodes"), pytest.mark.long]

ENDLESS = 100_000
PACED = {"steps": ENDLESS, "pace_s": 0.2, "every": 10}
PATIENT = {"MaximumRetryAttempts": 30}
WHOLE = {"InstanceType": "whole"}
PARTS = "-of-2.npy"
"""What names of checkpoint files end with."""
MODEL = "output/model.tar.gz"


@contextlib.contextmanager
def costs_a_start(gangs: Gangs, name: str, what: str) -> Iterator[None]:
    """What is done in the block costs a job that trains one start, which goes on from a checkpoint that was stored."""
    stored, resumed = gangs.stored_step(name), len(gangs.resumed_from(name))
    yield
    began = time.monotonic()
    gangs.until_resumed(name, resumed + 1)
    since = gangs.resumed_from(name)[resumed]
    print(f"\n{what}: {time.monotonic() - began:.1f} s until it went on from step {since}; stored {stored}")
    assert since >= stored


def until_new_checkpoint(gangs: Gangs, name: str) -> None:
    """Wait until a job has stored more than what it went on from."""
    since = gangs.resumed_from(name)[-1]
    eventually(lambda: gangs.stored_step(name) > since, f"a new checkpoint of {name} is stored")


def test_containers_and_ranks_of_one_machine_die_in_every_phase(gangs: Gangs, hurt: GangFaults, lives: Lives) -> None:
    name = gangs.create(
        1, 2, checkpoints=True, hyperparameters={**PACED, "fork": 1}, resources=WHOLE, RetryStrategy=PATIENT
    )
    gangs.until_resumed(name, 1)
    for victim, kill in {"a container": hurt.kill_container, "a rank's process": hurt.kill_rank}.items():
        until_new_checkpoint(gangs, name)
        with costs_a_start(gangs, name, f"{victim} in training"):
            kill(name, 1)
        with costs_a_start(gangs, name, f"{victim} in an all-reduce"), hurt.waiting_for(name, 0):
            kill(name, 1)
        with costs_a_start(gangs, name, f"{victim} in a checkpoint's upload"), hurt.gate.hold("PUT", PARTS) as uploads:
            uploads.wait_until_held()
            kill(name, 0)
    gangs.until_said(name, "rank 1 died: its connection to the exchange closed before it had left")
    hurt.let_finish(name)
    gangs.assert_trained(name)
    lives.assert_never_two(name)


def test_a_job_whose_rank_dies_fails_as_its_container_says(gangs: Gangs, hurt: GangFaults) -> None:
    name = gangs.create(1, 2, hyperparameters={**PACED, "fork": 1})
    gangs.until_said(name, "rank=1 step=3")
    hurt.kill_rank(name, 1)
    ended = gangs.jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Failed"
    assert ended["FailureReason"].startswith("AlgorithmError: algo-2 (rank 1 of 2): "), ended
    assert "the worker ended with 9" in ended["FailureReason"]
    gangs.until_said(name, "rank 1 died: its connection to the exchange closed before it had left")
    gangs.assert_nothing_left(name)


def test_parts_of_a_gang_die_in_every_phase(gangs: Gangs, hurt: GangFaults, lives: Lives) -> None:
    name = lose_parts_in_the_download(gangs, hurt)
    lose_parts_in_training(gangs, hurt, name)
    lose_parts_in_an_all_reduce(gangs, hurt, name)
    lose_parts_in_the_upload_of_a_checkpoint(gangs, hurt, name)
    lose_parts_in_the_final_upload(gangs, hurt, name)
    hurt.let_finish(name)
    gangs.assert_trained(name)
    lives.assert_never_two(name)


def lose_parts_in_the_download(gangs: Gangs, hurt: GangFaults) -> str:
    """Create the job, whose machines fetch one object each. Returns its name once it trains."""
    data = f"data/{time.time_ns()}"
    for number in range(2):
        gangs.s3.put_object(Bucket=gangs.bucket, Key=f"{data}/part-{number}", Body=b"0" * 1000)
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{gangs.bucket}/{data}"}
    source["S3DataDistributionType"] = "ShardedByS3Key"
    with hurt.gate.hold("GET", f"{data}/part-") as downloads:
        name = gangs.create(
            2,
            checkpoints=True,
            hyperparameters=PACED,
            resources=WHOLE,
            RetryStrategy=PATIENT,
            InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        )
        downloads.wait_until_held(2)
        hurt.kill_control_plane(name)
        for what, kill in {"an instance": lambda: hurt.kill_machine(name, 1), "a node": hurt.kill_node}.items():
            downloads.wait_until_held(2)
            began, starts = time.monotonic(), gangs.start_count(name)
            kill()
            eventually(lambda starts=starts: gangs.start_count(name) > starts, f"the loss of {what} costs a start", 180)
            print(f"\n{what} in the download: {time.monotonic() - began:.1f} s until the next start")
        assert gangs.resumed_from(name) == []
    gangs.until_resumed(name, 1)
    return name


def lose_parts_in_training(gangs: Gangs, hurt: GangFaults, name: str) -> None:
    faults: dict[str, Callable[[], None]] = {
        "a container": lambda: hurt.kill_container(name, 1),
        "an instance": lambda: hurt.kill_machine(name, 1),
        "the supervisor": hurt.kill_supervisor,
        "a node": hurt.kill_node,
    }
    hurt.kill_control_plane(name)
    for what, kill in faults.items():
        until_new_checkpoint(gangs, name)
        with costs_a_start(gangs, name, f"{what} in training"):
            kill()


def lose_parts_in_an_all_reduce(gangs: Gangs, hurt: GangFaults, name: str) -> None:
    """Those that die are in the call already, and wait for the other's process, which stands still."""
    faults: dict[str, Callable[[int], None]] = {
        "a container": lambda rank: hurt.kill_container(name, rank),
        "an instance": lambda machine: hurt.kill_machine(name, machine),
        "a node": lambda _: hurt.kill_node(),
    }
    for what, kill in faults.items():
        waits = hurt.machine_on_second_node(name)
        with costs_a_start(gangs, name, f"{what} in an all-reduce"), hurt.waiting_for(name, 1 - waits):
            if what == "a container":
                hurt.kill_control_plane(name)
            kill(waits)


def lose_parts_in_the_upload_of_a_checkpoint(gangs: Gangs, hurt: GangFaults, name: str) -> None:
    """Each machine stores a part of every checkpoint; those that die have begun to."""
    faults = {"an instance": lambda it: hurt.kill_machine(name, it), "a node": lambda _: hurt.kill_node()}
    for what, kill in faults.items():
        writer = hurt.machine_on_second_node(name)
        part = f"/{writer}{PARTS}"
        with costs_a_start(gangs, name, f"{what} in a checkpoint's upload"), hurt.gate.hold("PUT", part) as uploads:
            uploads.wait_until_held()
            if what == "an instance":
                hurt.kill_control_plane(name)
            kill(writer)


def lose_parts_in_the_final_upload(gangs: Gangs, hurt: GangFaults, name: str) -> None:
    """Machine 1 stores its part first, then machine 0 the whole; those that die have begun to."""
    with costs_a_start(gangs, name, "an instance in the final upload"), hurt.gate.hold("PUT", MODEL) as uploads:
        hurt.let_finish(name)
        uploads.wait_until_held()
        hurt.kill_control_plane(name)
        hurt.kill_machine(name, 0)
    writer = hurt.machine_on_second_node(name)
    stores = f"/machine-{writer}/" if writer else MODEL
    with costs_a_start(gangs, name, "a node in the final upload"), hurt.gate.hold("PUT", stores) as uploads:
        hurt.let_finish(name)
        uploads.wait_until_held()
        hurt.kill_node()
