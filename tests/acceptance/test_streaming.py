"""Pipe mode on a whole platform: what containers read from their pipes, and how jobs end whose data breaks."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from typing import Any

import pyarrow as pa

from support.faults import eventually, kill_process
from support.jobs import Jobs
from support.platform import Platform
from support.s3 import ObjectStore

PARTS = {f"data/part-{n}": random.Random(n).randbytes(size) for n, size in enumerate((9_000_000, 10, 300_000, 0, 7))}
WHOLE = hashlib.sha256(b"".join(PARTS.values())).hexdigest()


def create(jobs: Jobs, script: str, *channels: dict[str, Any], **changes: Any) -> str:
    """Create a job in Pipe mode that runs a shell script, with `$data` for where the pipes are."""
    return jobs.create(
        AlgorithmSpecification={
            "TrainingImage": jobs.image,
            "TrainingInputMode": "Pipe",
            "ContainerEntrypoint": ["sh", "-ec"],
            "ContainerArguments": [f"data=/opt/ml/input/data; {script}"],
        },
        InputDataConfig=list(channels),
        **changes,
    )


def channel(name: str, uri: str, kind: str = "S3Prefix", **changes: Any) -> dict[str, Any]:
    source = {"S3DataType": kind, "S3Uri": uri, **changes.pop("source", {})}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **changes}


def put(s3: ObjectStore, **objects: bytes) -> str:
    """Put objects into a bucket of their own, and return its name."""
    bucket, client = s3.bucket(), s3.client()
    for key, body in objects.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)
    client.close()
    return bucket


def lines(platform: Platform, job: str) -> dict[str, list[str]]:
    """What the job's containers said, by host and attempt."""
    logs, group = platform.client("logs"), "/aws/sagemaker/TrainingJobs"
    found: dict[str, list[str]] = {}
    try:
        for stream in logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")["logStreams"]:
            name = stream["logStreamName"]
            events = logs.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True)["events"]
            found[name.partition("/")[2]] = [event["message"] for event in events]
    except logs.exceptions.ResourceNotFoundException:  # nobody has said anything yet
        return found
    finally:
        logs.close()
    return found


def read_archive(s3: ObjectStore, place: str) -> dict[str, bytes]:
    """The files in an archive at `bucket/key`."""
    bucket, _, key = place.partition("/")
    client = s3.client()
    content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    client.close()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name.removeprefix("./"): file.read() for name, file in files.items() if file is not None}


def test_containers_read_objects_packed_ones_and_manifests_pass_after_pass(
    platform: Platform, jobs: Jobs, s3: ObjectStore
) -> None:
    packed = {f"packed/{n}.gz": gzip.compress(body) for n, body in enumerate(PARTS.values())}
    bucket = put(s3, **PARTS, **packed, **{"rows.csv": b"name,size\nwhale,25.5\nant,0.01\n"})
    listed = [json.dumps({"label": n, "part-ref": f"s3://{bucket}/{key}"}) for n, key in enumerate(PARTS)]
    client = s3.client()
    client.put_object(Bucket=bucket, Key="lines", Body="\n".join(listed).encode())
    client.close()
    name = create(
        jobs,
        "for pass in 0 1; do for name in plain packed lines; do sha256sum < $data/${name}_$pass; done; done; "
        "cat $data/rows_0 > /opt/ml/model/rows; head -c 3 $data/plain_2 > /dev/null; "
        "sha256sum < $data/plain_3; ls $data",
        channel("plain", f"s3://{bucket}/data"),
        channel("packed", f"s3://{bucket}/packed", CompressionType="Gzip"),
        channel("rows", f"s3://{bucket}/rows.csv", InputMode="Arrow"),
        channel(
            "lines",
            f"s3://{bucket}/lines",
            "AugmentedManifestFile",
            source={"AttributeNames": ["part-ref", "label"]},
        ),
    )
    ended = jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    labelled = b"".join(body + str(n).encode() for n, body in enumerate(PARTS.values()))
    one_pass = [f"{digest}  -" for digest in (WHOLE, WHOLE, hashlib.sha256(labelled).hexdigest())]
    said = lines(platform, name)["algo-1-1"]
    assert said[:7] == [*one_pass, *one_pass, f"{WHOLE}  -"]
    assert {"lines_2", "packed_2", "plain_4"} <= set(said[7:])
    model = ended["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://")
    rows = pa.ipc.open_stream(read_archive(s3, model)["rows"]).read_all()
    assert rows.to_pydict() == {"name": ["whale", "ant"], "size": [25.5, 0.01]}
    told = platform.cli("events", name).stdout
    assert f"Channel packed: algo-1 {2 * sum(map(len, PARTS.values()))} bytes in 2 passes" in told


def test_an_object_that_is_missing_in_the_middle_of_a_stream_fails_the_job_by_its_name(
    platform: Platform, jobs: Jobs, s3: ObjectStore
) -> None:
    bucket = put(s3, **PARTS)
    listed = [json.dumps({"part-ref": f"s3://{bucket}/{key}"}) for key in [*PARTS, "data/gone"]]
    client = s3.client()
    client.put_object(Bucket=bucket, Key="lines", Body="\n".join(listed).encode())
    client.close()
    lines_of_it = channel(
        "train", f"s3://{bucket}/lines", "AugmentedManifestFile", source={"AttributeNames": ["part-ref"]}
    )
    name = create(jobs, "cat $data/train_0 | wc -c; echo the end", lines_of_it)
    ended = jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Failed"
    assert ended["FailureReason"].startswith("ClientError: channel train: no object lies at ")
    assert f"s3://{bucket}/data/gone" in ended["FailureReason"]
    assert "the end" not in lines(platform, name).get("algo-1-1", [])


def test_a_supervisor_that_dies_in_the_middle_of_a_pass_costs_the_attempt_and_no_reader_takes_that_for_the_end(
    platform: Platform, jobs: Jobs, s3: ObjectStore
) -> None:
    bucket = put(s3, **PARTS)
    one_byte = "dd bs=1 count=1 <&3 > /dev/null 2>&1"
    script = f"exec 3< $data/train_0; {one_byte}; echo reading; sleep 5; sha256sum <&3; echo read"
    name = create(jobs, script, channel("train", f"s3://{bucket}/data"))
    eventually(lambda: "reading" in lines(platform, name).get("algo-1-1", []), "it reads")
    kill_process(platform.home, "ray::Machine")
    ended = jobs.finish(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    said, rest = lines(platform, name), hashlib.sha256(b"".join(PARTS.values())[1:]).hexdigest()
    assert said["algo-1-1"] == ["reading"]
    assert said["algo-1-2"] == ["reading", f"{rest}  -", "read"]
