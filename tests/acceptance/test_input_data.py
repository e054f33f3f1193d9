"""Training data as files on a whole platform: kept for the next job, or fetched as it is read; and what is left."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from raymaker.actors.mounting import mounts_below
from support.faults import eventually, kill_process
from support.jobs import Jobs
from support.platform import Platform
from support.s3 import ObjectStore

PARTS = {f"data/part-{n}": random.Random(n).randbytes(size) for n, size in enumerate((12_000_000, 10, 300_000, 0, 7))}
WHOLE = hashlib.sha256(b"".join(PARTS.values())).hexdigest()
DATA = "/opt/ml/input/data"


def create(jobs: Jobs, script: str, mode: str, *channels: dict[str, Any], **changes: Any) -> str:
    """Create a job that runs a shell script, in `/opt/ml/input/data`."""
    return jobs.create(
        AlgorithmSpecification={
            "TrainingImage": jobs.image,
            "TrainingInputMode": mode,
            "ContainerEntrypoint": ["sh", "-ec"],
            "ContainerArguments": [f"cd {DATA}; {script}"],
        },
        InputDataConfig=list(channels),
        **changes,
    )


def channel(name: str, uri: str, distribution: str = "FullyReplicated") -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": distribution}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def put(s3: ObjectStore) -> str:
    """Put the parts into a bucket of their own, and return its name."""
    bucket = s3.bucket()
    for key, body in PARTS.items():
        s3.put(bucket, key, body)
    return bucket


def read_count(s3: ObjectStore, bucket: str) -> int:
    """How often any of the parts was read, in whole or in part."""
    assert s3.log is not None
    return s3.log.read_text(errors="replace").count(f'"GET /{bucket}/data/')


def said(platform: Platform, job: str) -> list[str]:
    """What the job's containers said."""
    return platform.cli("logs", job).stdout.splitlines()


def test_the_second_job_on_the_same_data_reads_nothing_from_the_store_and_sees_nothing_of_the_first(
    platform: Platform, jobs: Jobs, s3: ObjectStore
) -> None:
    bucket = put(s3)
    script = (
        "cat train/part-* | sha256sum; cat part/* | wc -c; "
        "echo changed > train/part-0; rm train/part-1; echo new > train/new; echo changed > part/part-0; ls train"
    )
    channels = channel("train", f"s3://{bucket}/data"), channel("part", f"s3://{bucket}/data", "ShardedByS3Key")
    reads = []
    for _ in range(2):
        name = create(jobs, script, "File", *channels)
        ended = jobs.finish(name)
        assert ended["TrainingJobStatus"] == "Completed", ended
        lines = " ".join(said(platform, name))
        assert WHOLE in lines
        assert str(sum(map(len, PARTS.values()))) in lines
        reads.append(read_count(s3, bucket))
    assert reads[0] == reads[1]
    events = platform.cli("events", name).stdout
    assert "Channel train: 11 MiB from this machine's cache" in events
    eventually(lambda: not mounts_below(platform.home), "nothing stays mounted")


def test_fast_files_are_read_in_containers_as_if_they_were_there_and_a_dead_supervisor_costs_the_attempt(
    platform: Platform, jobs: Jobs, s3: ObjectStore
) -> None:
    bucket = put(s3)
    script = (
        "cat train/part-* | sha256sum; dd if=train/part-0 bs=1000 skip=9000 count=50 2> /dev/null | sha256sum; "
        "cat part/* | wc -c; ! touch train/new 2> /dev/null; echo read; sleep 10"
    )
    name = create(
        jobs,
        script,
        "FastFile",
        channel("train", f"s3://{bucket}/data"),
        channel("part", f"s3://{bucket}/data", "ShardedByS3Key"),
    )
    eventually(lambda: "read" in "\n".join(said(platform, name)), "it has read")
    kill_process(platform.home, "ray::Machine")
    ended = jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    lines = " ".join(said(platform, name))
    middle = hashlib.sha256(PARTS["data/part-0"][9_000_000:9_050_000]).hexdigest()
    for wanted in (WHOLE, middle, str(sum(map(len, PARTS.values())))):
        assert lines.count(wanted) == 2, "each attempt has read it"
    assert "FastFileFallback" not in platform.cli("events", name).stdout
    eventually(lambda: not mounts_below(platform.home), "nothing stays mounted")


def test_a_fast_file_whose_object_changes_fails_the_job_by_its_name(
    platform: Platform, jobs: Jobs, s3: ObjectStore
) -> None:
    bucket = put(s3)
    script = "exec 3< train/part-0; dd bs=1 count=1 <&3 > /dev/null 2>&1; echo begun; sleep 5; cat <&3 | sha256sum"
    name = create(jobs, script, "FastFile", channel("train", f"s3://{bucket}/data"))
    eventually(lambda: "begun" in "\n".join(said(platform, name)), "it has begun")
    s3.put(bucket, "data/part-0", PARTS["data/part-0"][::-1])
    ended = jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Failed"
    assert f"s3://{bucket}/data/part-0 changed while it was read" in ended["FailureReason"]
    eventually(lambda: not mounts_below(platform.home), "nothing stays mounted")
