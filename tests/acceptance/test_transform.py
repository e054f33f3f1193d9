"""Transform jobs on a whole platform, through stock boto3: run, hurt, stopped, refused."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from botocore.exceptions import ClientError

from raymaker.platform.client.connection import Connection
from support.faults import eventually, kill_process
from support.jobs import ENDED, fresh_name
from support.platform import ROOT, Platform
from support.transforms import Transforms

ROWS = [f"{number},{number % 7}" for number in range(300)]
ACTOR = "ray::TransformActor"


@pytest.fixture
def transforms(
    platform: Platform, engine: docker.DockerClient, transforming_image: str, tmp_path: Path
) -> Iterator[Transforms]:
    with contextlib.closing(Connection(platform.url)) as connection:
        made = Transforms(connection.client("sagemaker"), engine, transforming_image, tmp_path)
        yield made
        for name in made.made:
            if made.describe(name)["TransformJobStatus"] not in ENDED:
                made.sagemaker.stop_transform_job(TransformJobName=name)
                made.finish(name)
            eventually(lambda name=name: not made.containers(name), f"no container of {name} is left", 40)


def text(rows: list[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def scored(rows: list[str]) -> bytes:
    return text([f"<{row}>" for row in rows])


def events(transforms: Transforms, name: str) -> list[tuple[str, str]]:
    found = transforms.sagemaker.get_paginator("list_events").paginate(TransformJobName=name)
    return [(event["Kind"], event["Message"]) for page in found for event in page["Events"]]


def test_a_job_on_two_instances_with_a_bad_object_tells_how_far_it_came_and_keeps_the_rest(
    transforms: Transforms, platform: Platform
) -> None:
    name, model = fresh_name("transform"), transforms.model()
    good = {f"{number}.csv": text(ROWS[: number + 1]) for number in range(9)}
    transforms.put(name, {**good, "wrong.csv": b"1\nbad\n"})
    transforms.create(
        name,
        model,
        TransformResources={"InstanceType": "local", "InstanceCount": 2},
        MaxConcurrentTransforms=4,
        Tags=[{"Key": "team", "Value": "a"}],
    )
    transforms.sagemaker.delete_model(ModelName=model)
    ended = transforms.finish(name)
    assert ended["TransformJobStatus"] == "Failed"
    assert ended["FailureReason"].startswith("ClientError: 1 of 10 objects could not be transformed")
    assert "wrong.csv: records 1 to 2: the container answered with status 400" in ended["FailureReason"]
    assert transforms.outputs(name) == {f"{key}.out": scored(content.decode().split()) for key, content in good.items()}
    progress = ended["TransformProgress"]
    assert (progress["ObjectCount"], progress["ObjectsDone"], progress["ObjectsFailed"]) == (10, 9, 1)
    assert progress["RecordCount"] == sum(range(1, 10))
    assert ended["TransformStartTime"] <= ended["TransformEndTime"]
    told = events(transforms, name)
    assert [kind for kind, _ in told if kind in {"Starting", "Transforming", "Failed"}] == [
        "Starting",
        "Transforming",
        "Failed",
    ]
    assert [message[:11] for kind, message in told if kind == "ObjectFailed"] == ["wrong.csv: "]
    tags = transforms.sagemaker.list_tags(ResourceArn=ended["TransformJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "a"}]
    summaries = transforms.sagemaker.list_transform_jobs(NameContains=name)["TransformJobSummaries"]
    assert [(it["TransformJobName"], it["TransformJobStatus"]) for it in summaries] == [(name, "Failed")]
    with contextlib.closing(platform.client("logs")) as logs:
        group = "/aws/sagemaker/TransformJobs"
        streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        assert [stream["logStreamName"] for stream in streams] == [f"{name}/algo-1-1", f"{name}/algo-2-1"]


def test_a_machine_killed_in_the_middle_goes_on_where_it_was_and_nothing_is_lost_or_doubled(
    transforms: Transforms, platform: Platform
) -> None:
    name = fresh_name("transform")
    transforms.put(name, {f"{number:02}.csv": text(ROWS[number * 10 : number * 10 + 10]) for number in range(30)})
    transforms.create(
        name, transforms.model({"DELAY_S": "0.05"}), BatchStrategy="SingleRecord", MaxConcurrentTransforms=2
    )
    transforms.until_through(name, 6)
    stored = transforms.outputs(name)
    written_at = {key: (transforms.folder / name / "out" / key).stat().st_mtime_ns for key in list(stored)[:5]}
    kill_process(platform.home, ACTOR)
    ended = transforms.finish(name)
    assert ended["TransformJobStatus"] == "Completed", ended
    assert b"".join(output for _, output in sorted(transforms.outputs(name).items())) == scored(ROWS)
    assert ended["TransformProgress"]["ObjectsDone"] == 30
    assert ended["TransformProgress"]["RecordCount"] == 300
    again = {key: (transforms.folder / name / "out" / key).stat().st_mtime_ns for key in written_at}
    assert sum(again[key] == written_at[key] for key in again) >= len(again) - 2, "what was through was done again"


def test_a_job_is_stopped_while_it_waits_and_while_it_runs(transforms: Transforms) -> None:
    name, model = fresh_name("transform"), transforms.model()
    transforms.put(name, {"1.csv": b"1\n", "2.csv": b"sleep\n"})
    transforms.create(name, model, MaxConcurrentTransforms=2)  # one at a time, the one that sleeps might be the first
    transforms.until_through(name, 1)
    with pytest.raises(ClientError, match="already exists"):
        transforms.create(name, model)
    transforms.sagemaker.stop_transform_job(TransformJobName=name)
    assert transforms.describe(name)["TransformJobStatus"] in {"Stopping", "Stopped"}
    assert transforms.finish(name)["TransformJobStatus"] == "Stopped"
    assert transforms.outputs(name) == {"1.csv.out": b"<1>\n"}
    with pytest.raises(ClientError, match="in status Stopped"):
        transforms.sagemaker.stop_transform_job(TransformJobName=name)


def test_the_examples_model_answers_in_a_batch_as_it_does_row_by_row(
    transforms: Transforms, digits_image: str, digits: Path, platform: Platform
) -> None:
    """The rows' labels travel along, unseen by the model; the endpoint's answers are the reference."""
    script = str(ROOT / "examples" / "transform_driver.py")
    options = ["--endpoint-url", platform.url, "--image", digits_image, "--data", str(digits)]
    done = platform.run([sys.executable, script, *options])
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"(digits-\d+): Completed\n(.*): (\d+) of (\d+) held-out rows right", done.stdout)
    assert said is not None, done.stdout
    batch = Path(said[2]).read_text().splitlines()
    records = (digits / "test" / "test.csv").read_text().splitlines()
    assert len(batch) == len(records) == int(said[4])
    assert int(said[3]) > 0.94 * len(records)
    sagemaker = transforms.sagemaker
    deployed = sagemaker.deploy(TrainingJobName=said[1], EndpointName=fresh_name("digits"))
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=deployed["EndpointName"], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    with contextlib.closing(platform.client("sagemaker-runtime")) as runtime:
        for line, record in zip(batch[:40], records[:40], strict=True):
            label, _, features = record.partition(",")
            answer = runtime.invoke_endpoint(
                EndpointName=deployed["EndpointName"], ContentType="text/csv", Body=features.encode()
            )
            assert line == f"{label},{answer['Body'].read().decode().strip()}"
    sagemaker.delete_endpoint(EndpointName=deployed["EndpointName"])
    sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=deployed["EndpointName"], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
