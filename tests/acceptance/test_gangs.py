"""Jobs of many containers on two Ray nodes: what they train, and how they wait, stop and fail."""

from __future__ import annotations

import hashlib
import random
import time

import numpy as np
import pytest
from botocore.exceptions import ClientError

from support.faults import eventually
from support.gang_faults import GangFaults
from support.gangs import Gangs, Lives, expected_weights

pytestmark = pytest.mark.usefixtures("both_nodes")

PACED = {"steps": 100_000, "pace_s": 0.2}
BEFORE_CLAIMS_LAPSE_S = 150
"""Ray keeps room that nobody claims any more from others for 180 s: a gang that waited for that would be late."""


def test_four_containers_on_two_nodes_meet_and_train_the_model_that_one_trains(gangs: Gangs) -> None:
    began = time.monotonic()
    name = gangs.create(2, 2, hyperparameters={"steps": 40, "meet": 1}, EnableNetworkIsolation=False)
    gangs.assert_trained(name, 40)
    print(f"\n4 containers on 2 nodes: {time.monotonic() - began:.1f} s")
    said = gangs.lines(name)
    assert len(said) == 4
    for rank, lines in enumerate(said.values()):
        assert [f"rank={rank} met algo-{number}" in lines for number in range(1, 5)] == [True] * 4
    assert [(it["host"], it["rank"], it["machine_index"]) for it in gangs.containers(name)] == [
        (f"algo-{rank + 1}", rank, rank // 2) for rank in range(4)
    ]
    alone = gangs.create(1, 1, hyperparameters={"steps": 40})
    gangs.jobs.finish(alone)
    np.testing.assert_allclose(gangs.model(name)[1], gangs.model(alone)[1], rtol=1e-9)


@pytest.mark.long
def test_gangs_wait_stop_and_fail_as_they_are_asked_to(gangs: Gangs) -> None:
    with pytest.raises(ClientError, match="can never hold so many instances of whole"):
        gangs.create(3, resources={"InstanceType": "whole"})
    whole = {"InstanceType": "whole"}
    running = gangs.create(2, hyperparameters={"steps": 10_000, "pace_s": 0.2}, resources=whole)
    gangs.until_said(running, "rank=0 step=3")
    waiting = gangs.create(2, hyperparameters={"steps": 10, "fail_rank": 1}, resources=whole)
    given_up = gangs.create(2, hyperparameters={"steps": 10}, resources=whole)
    told = gangs.jobs.until(waiting, "Pending")["SecondaryStatusTransitions"][-1]["StatusMessage"]
    assert told.startswith("Waiting for 2 instances of whole: 4 CPUs short of what is free"), told
    gangs.jobs.until(given_up, "Pending")
    gangs.jobs.sagemaker.stop_training_job(TrainingJobName=given_up)
    assert gangs.jobs.finish(given_up)["TrainingJobStatus"] == "Stopped"
    gangs.jobs.sagemaker.stop_training_job(TrainingJobName=running)
    ended = gangs.jobs.finish(running)
    assert ended["TrainingJobStatus"] == "Stopped", ended
    made, weights = gangs.model(running)
    np.testing.assert_allclose(weights, expected_weights(made), rtol=1e-9)
    ended = gangs.jobs.finish(waiting)
    assert ended["TrainingJobStatus"] == "Failed"
    assert ended["FailureReason"] == "AlgorithmError: algo-2 (rank 1 of 2): the data is sour, exit code: 3"
    for name in (running, waiting, given_up):
        gangs.assert_nothing_left(name)


@pytest.mark.long
def test_an_elastic_gang_goes_on_with_one_machine_and_grows_back(gangs: Gangs, hurt: GangFaults, lives: Lives) -> None:
    elastic = {"InstanceType": "whole", "MinInstanceCount": 1, "MaxInstanceCount": 2}
    name = gangs.create(2, checkpoints=True, hyperparameters={**PACED, "every": 10}, resources=elastic)
    platform = gangs.platform
    stored = until_it_trains_on(gangs, name, 2, stored=0)
    began = time.monotonic()
    platform.remove_node(platform.nodes[-1])
    stored = until_it_trains_on(gangs, name, 1, stored)
    print(f"\nlost one of two nodes: {time.monotonic() - began:.1f} s until the other has stored a checkpoint alone")
    began = time.monotonic()
    platform.add_node(hurt.node_cpus)
    until_it_trains_on(gangs, name, 2, stored)
    print(f"\na node joined: {time.monotonic() - began:.1f} s until both have stored a checkpoint")
    hurt.let_finish(name)
    gangs.assert_trained(name)
    lives.assert_never_two(name)


def until_it_trains_on(gangs: Gangs, name: str, machines: int, stored: int) -> int:
    """Wait until a job trains on so many machines, from what was stored or later; returns the next step that it stores.

    How many starts that takes is left open: a gang may come back while a node that joins is not yet seen by all.
    """
    count, since = eventually(
        lambda: last if (last := gangs.starts(name)[-1:]) and last[0][0] == machines else None,
        lambda: f"{name} trains on {machines}: {gangs.events(name)}; {gangs.platform.cli('status').stdout}",
        BEFORE_CLAIMS_LAPSE_S,
    )[0]
    assert since >= stored
    eventually(lambda: gangs.stored_step(name) > since, f"{count} machines store a checkpoint of {name}")
    return gangs.stored_step(name)


@pytest.mark.long
def test_a_gang_hears_that_a_node_is_about_to_be_taken_away(gangs: Gangs, hurt: GangFaults) -> None:
    name = gangs.create(2, hyperparameters={**PACED, "heed": 1}, resources={"InstanceType": "whole"})
    gangs.until_resumed(name, 1)
    index = hurt.machine_on_second_node(name)
    hurt.announce_preemption()
    for rank in range(2):
        gangs.until_said(name, f"rank={rank} hears that the node of [{index}] goes")
    notice = f"PreemptionNotice: Machine 1 of 2: The node of machine {index + 1} is about to be taken away"
    eventually(lambda: notice in gangs.events(name), f"the job's events tell of it: {gangs.events(name)}")
    hurt.let_finish(name)
    gangs.assert_trained(name)
    gangs.platform.nodes.pop().stop()


def test_a_gang_shares_a_streamed_channel_out_anew_in_every_pass(gangs: Gangs, base_image: str) -> None:
    parts = [random.Random(number).randbytes(200_000) for number in range(6)]
    for number, part in enumerate(parts):
        gangs.s3.put_object(Bucket=gangs.bucket, Key=f"streamed/{number}", Body=part)
    places = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{gangs.bucket}/streamed"}
    places["S3DataDistributionType"] = "ShardedByS3Key"
    name = gangs.jobs.create(
        AlgorithmSpecification={
            "TrainingImage": base_image,
            "TrainingInputMode": "Pipe",
            "ContainerEntrypoint": ["sh", "-ec"],
            "ContainerArguments": [
                "for pass in 0 1 2; do split -b 200000 --filter=sha256sum - < /opt/ml/input/data/train_$pass; done"
            ],
        },
        InputDataConfig=[
            {"ChannelName": "train", "ShuffleConfig": {"Seed": 3}, "DataSource": {"S3DataSource": places}}
        ],
        ResourceConfig={
            "InstanceType": "local",
            "InstanceCount": 2,
            "VolumeSizeInGB": 1,
            "PlacementStrategy": "Spread",
        },
    )
    assert gangs.jobs.finish(name)["TrainingJobStatus"] == "Completed", gangs.events(name)
    first, second = gangs.lines(name).values()
    expected = sorted(f"{hashlib.sha256(part).hexdigest()}  -" for part in parts)
    passes = [first[start : start + 3] + second[start : start + 3] for start in (0, 3, 6)]
    assert [sorted(it) for it in passes] == [expected] * 3
    assert len({tuple(it) for it in passes}) == 3
    gangs.assert_nothing_left(name)
