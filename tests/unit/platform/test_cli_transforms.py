"""`raymaker transform` against the whole API, without a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from raymaker.actors.reports import Outcome
from raymaker.platform.cli.main import app
from raymaker.platform.cli.session import Session
from raymaker.platform.database import transforms
from raymaker.serving.transform.reports import Finished, Phase, Progress, TransformReport
from support.near_platform import NearPlatform, near_platform

ROLE = "arn:aws:iam::000000000000:role/any"


@pytest.fixture
def platform(home: Path) -> Iterator[NearPlatform]:
    """A platform with a model called `m`."""
    with near_platform(home) as platform:
        container = {"Image": "i", "ModelDataUrl": "s3://b/m.tar.gz"}
        platform.client.connection.call(
            "create_model", ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container
        )
        yield platform


def run(platform: NearPlatform, *arguments: str) -> Result:
    result = CliRunner().invoke(app, ["transform", *arguments], obj=Session(known_client=platform.client))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def report(platform: NearPlatform, phase: Phase, outcome: Outcome | None = None, **facts: object) -> None:
    said = TransformReport("mine", 1, 0, phase, f"{phase} it is", platform.now, outcome=outcome, **facts)  # type: ignore[arg-type]
    transforms.apply_report(platform.context.database, said, platform.now)


def test_everything_is_handed_on_and_the_name_printed(platform: NearPlatform, tmp_path: Path) -> None:
    options = ["--join", "--input-filter", "$[1:]", "--concurrency", "4", "--env", "A=1", "--accept", "text/csv"]
    result = run(platform, "m", str(tmp_path), "s3://b/out", "--name", "mine", "--strategy", "SingleRecord", *options)
    assert (result.exit_code, result.stdout) == (0, "mine\n")
    seen = platform.client.connection.call("describe_transform_job", TransformJobName="mine")
    assert seen["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == tmp_path.as_uri()
    assert seen["TransformOutput"] == {"S3OutputPath": "s3://b/out", "Accept": "text/csv", "AssembleWith": "Line"}
    assert seen["DataProcessing"] == {"InputFilter": "$[1:]", "OutputFilter": "$", "JoinSource": "Input"}
    assert (seen["BatchStrategy"], seen["MaxConcurrentTransforms"], seen["Environment"]) == (
        "SingleRecord",
        4,
        {"A": "1"},
    )


def test_a_job_is_followed_to_its_end_and_a_failure_is_an_error(platform: NearPlatform) -> None:
    failed = (Finished("a.csv", failure="bad"),)
    platform.meanwhile(
        lambda: transforms.start_attempt(platform.context.database, "mine", platform.now),
        lambda: report(platform, Phase.TRANSFORMING),
        lambda: report(platform, Phase.ENDED, Outcome.COMPLETED, progress=Progress(2, 1, 1), finished=failed),
    )
    result = run(platform, "m", "s3://b/in/", "s3://b/out", "--name", "mine", "--follow")
    assert result.exit_code == 1
    assert "mine: Transforming it is" in result.output
    assert "transform job mine failed: ClientError: 1 of 2 objects could not be transformed" in result.output


def test_programs_get_json(platform: NearPlatform) -> None:
    result = run(platform, "m", "s3://b/in/", "s3://b/out", "--json")
    described = json.loads(result.stdout)
    assert described["TransformJobName"].startswith("m-")
    assert described["TransformProgress"]["ObjectCount"] == 0


def test_a_folder_that_is_not_there_is_told(platform: NearPlatform) -> None:
    result = run(platform, "m", "/no/such/folder", "s3://b/out")
    assert (result.exit_code, "INPUT is /no/such/folder" in result.output) == (1, True)
