"""Transform jobs in the database, and their API through stock boto3 over real HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from raymaker.actors.reports import Outcome, ReportRefused
from raymaker.actors.spec import SourceSpec
from raymaker.platform.app import create_app
from raymaker.platform.database import events, transforms
from raymaker.platform.database.engine import Database
from raymaker.platform.operations.registry import Context
from raymaker.platform.transforming import transform_jobs as jobs
from raymaker.platform.transforming.transform_jobs import TransformJobRecord, TransformModel
from raymaker.serving.transform.reports import Finished, Phase, Progress, TransformReport
from support.frontend import make_context, serve_app
from support.jobs import fresh_name

ODD = "half a character \ud800, a NUL \0, and \N{SNOWMAN}"
ROLE = "arn:aws:iam::000000000000:role/any"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of either kind."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.dispose()


def add(database: Database, name: str = "t") -> TransformJobRecord:
    request = {"TransformResources": {"InstanceType": "local", "InstanceCount": 2}}
    model = TransformModel(None, SourceSpec("s3://b/code", "serve.py"), "s3://b/m.tar.gz", {"A": "1"})
    record = jobs.create_transform_job(name, f"arn:{name}", "000000000000", request, model=model, now=1.0)
    with database.transaction() as connection:
        assert transforms.insert_transform_job(connection, record)
    return record


def find(database: Database, name: str = "t") -> TransformJobRecord | None:
    with database.reading() as connection:
        return transforms.find_transform_job(connection, name)


def report(phase: Phase = Phase.TRANSFORMING, machine: int = 0, attempt: int = 1, **facts: Any) -> TransformReport:
    return TransformReport("t", attempt, machine, phase, "said", 5.0, **facts)


def told(database: Database) -> list[tuple[str, str]]:
    with database.reading() as connection:
        return [(event.kind, event.message) for event in events.list_events(connection, "arn:t", 500, None)[0]]


def test_a_job_comes_back_as_it_was_written_and_its_name_is_taken_once(database: Database) -> None:
    record = add(database)
    assert find(database) == record
    with database.transaction() as connection:
        assert not transforms.insert_transform_job(connection, record)
    assert transforms.unfinished_transform_jobs(database) == [record]


def test_objects_that_are_through_are_known_to_whoever_goes_on(database: Database) -> None:
    add(database)
    transforms.start_attempt(database, "t", 2.0)
    done = Finished("a.csv", 3, 30, 15), Finished("b.csv", failure=f"bad {ODD}")
    transforms.apply_report(database, report(finished=done, progress=Progress(5, 1, 1)), 3.0)
    transforms.apply_report(database, report(finished=done, progress=Progress(5, 1, 1)), 4.0)
    ledger = transforms.begin(database, "t", 1)
    assert ledger.started_at == 3.0
    assert ledger.finished["a.csv"] == done[0]
    assert (ledger.finished["b.csv"].failure or "").startswith("bad half a character ?")
    assert [message[:10] for kind, message in told(database) if kind == "ObjectFailed"] == ["b.csv: bad"]


def test_a_machine_of_another_attempt_is_refused_and_leaves_nothing(database: Database) -> None:
    add(database)
    transforms.start_attempt(database, "t", 2.0)
    transforms.apply_report(database, report(Phase.INTERRUPTED), 3.0)
    with pytest.raises(ReportRefused, match="attempt 2 is"):
        transforms.apply_report(database, report(finished=(Finished("a.csv"),)), 4.0)
    with pytest.raises(ReportRefused):
        transforms.begin(database, "t", 1)
    assert transforms.begin(database, "t", 2).finished == {}
    with pytest.raises(ReportRefused, match="no transform job"):
        transforms.begin(database, "nobody", 1)


def test_of_many_failures_the_first_hundred_are_told(database: Database) -> None:
    add(database)
    transforms.start_attempt(database, "t", 2.0)
    for start in range(0, 240, 60):
        failed = tuple(Finished(f"{number:03}", failure="bad") for number in range(start, start + 60))
        transforms.apply_report(database, report(finished=failed, progress=Progress(300, 0, start + 60)), 3.0)
    assert len([kind for kind, _ in told(database) if kind == "ObjectFailed"]) == 100
    assert len(transforms.begin(database, "t", 1).finished) == 240


def test_a_job_ends_with_the_last_machine(database: Database) -> None:
    add(database)
    transforms.start_attempt(database, "t", 2.0)
    for machine in range(2):
        transforms.note(database, "t", 1, "Container", "started", now=2.5)
        last = report(Phase.ENDED, machine, outcome=Outcome.COMPLETED, progress=Progress(2, 2))
        record = transforms.apply_report(database, last, 3.0 + machine)
    assert (record.status, record.ended_at) == ("Completed", 4.0)
    assert record == find(database)
    assert transforms.unfinished_transform_jobs(database) == []
    assert [kind for kind, _ in told(database)][-1] == "Completed"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    context = make_context(tmp_path_factory.mktemp("home"))
    context.database.migrate()
    yield context
    context.database.dispose()


@pytest.fixture(scope="module")
def sagemaker(context: Context) -> Iterator[Any]:
    """Stock boto3, but for its own checks of parameters; and a model called `m`."""
    with serve_app(create_app(context)) as url:
        client = boto3.client(
            "sagemaker",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
        )
        with contextlib.closing(client):
            container = {"Image": "i", "ModelDataUrl": "s3://b/m.tar.gz", "Environment": {"A": "1", "B": "2"}}
            client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
            yield client


def request(changes: dict[str, Any] | None = None, name: str = "t") -> dict[str, Any]:
    """A request with members changed by dotted paths; None takes one away."""
    asked: dict[str, Any] = {
        "TransformJobName": name,
        "ModelName": "m",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/"}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": "s3://b/out"},
        "TransformResources": {"InstanceType": "local", "InstanceCount": 1},
    }
    for path, value in (changes or {}).items():
        *steps, last = path.split(".")
        place = asked
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
        if value is None:
            del place[last]
    return asked


def test_a_job_is_described_listed_and_stopped_in_sagemakers_words(sagemaker: Any, context: Context) -> None:
    asked = request({"Environment": {"B": "3"}, "MaxConcurrentTransforms": 0, "DataProcessing.InputFilter": "$[1:]"})
    arn = sagemaker.create_transform_job(**asked)["TransformJobArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:transform-job/t"
    described = sagemaker.describe_transform_job(TransformJobName="t")
    for member in ("TransformInput", "TransformOutput", "TransformResources", "ModelName", "MaxConcurrentTransforms"):
        assert described[member] == asked[member]
    assert described["DataProcessing"] == {"InputFilter": "$[1:]", "OutputFilter": "$", "JoinSource": "None"}
    assert described["TransformJobStatus"] == "InProgress"
    listed = sagemaker.list_transform_jobs(SortBy="CreationTime", MaxResults=1)["TransformJobSummaries"]
    assert [it["TransformJobArn"] for it in listed] == [arn]
    sagemaker.stop_transform_job(TransformJobName="t")
    sagemaker.get_waiter("transform_job_completed_or_stopped").wait(TransformJobName="t")
    with context.database.reading() as connection:
        record = transforms.find_transform_job(connection, "t")
    assert record is not None
    assert record.model == TransformModel("i", None, "s3://b/m.tar.gz", {"A": "1", "B": "2"})


def test_what_is_not_there_or_taken_is_told_as_sagemaker_tells_it(sagemaker: Any) -> None:
    for call in (sagemaker.describe_transform_job, sagemaker.stop_transform_job):
        with pytest.raises(ClientError, match="no transform job nobody") as told:
            call(TransformJobName="nobody")
        assert told.value.response["Error"]["Code"] == "ValidationException"
    sagemaker.create_transform_job(**request(name="taken"))
    with pytest.raises(ClientError, match="already exists") as told:
        sagemaker.create_transform_job(**request(name="taken"))
    assert told.value.response["Error"]["Code"] == "ResourceInUse"


S3 = "TransformInput.DataSource.S3DataSource"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ModelName": "none"}, "Could not find model"),
        (
            {f"{S3}.S3DataType": "AugmentedManifestFile"},
            "AugmentedManifestFile is not supported: use S3Prefix",
        ),
        ({f"{S3}.S3DataType": "Converse"}, "S3DataType Converse is not supported"),
        ({f"{S3}.S3Uri": "b/in"}, "S3Uri"),
        ({"TransformInput.SplitType": "TFRecord"}, "SplitType TFRecord is not supported: use None, Line or RecordIO"),
        ({"TransformInput.SplitType": "Word"}, "transformInput.splitType"),
        ({"TransformInput.ContentType": "text/csv\nx: y"}, "ContentType"),
        ({"TransformOutput.Accept": "é"}, "TransformOutput.Accept"),
        ({"TransformOutput.S3OutputPath": "s3://b/in/out"}, "lies below the S3Uri"),
        ({"TransformOutput.S3OutputPath": "s3://b/in"}, "lies below the S3Uri"),
        ({f"{S3}.S3Uri": "s3://b/o"}, "lies below the S3Uri"),
        ({f"{S3}.S3Uri": "file:///d", "TransformOutput.S3OutputPath": "file:///d/out"}, "lies below"),
        ({"TransformOutput.KmsKeyId": "key"}, "TransformOutput.KmsKeyId is not supported"),
        ({"TransformResources.VolumeKmsKeyId": "key"}, "VolumeKmsKeyId is not supported"),
        ({"TransformResources.InstanceType": "ml.none.large"}, "no instance type ml.none.large"),
        ({"TransformResources.InstanceCount": 0}, "instanceCount"),
        (
            {"TransformResources.InstanceCount": 1000},
            "1000 is more than this cluster could hold: 64 of local",
        ),
        ({"DataCaptureConfig.DestinationS3Uri": "s3://b/c"}, "DataCaptureConfig is not supported"),
        ({"MaxPayloadInMB": 101}, "MaxPayloadInMB 101 is too much"),
        ({"MaxPayloadInMB": -1}, "maxPayloadInMB"),
        ({"MaxPayloadInMB": 20, "MaxConcurrentTransforms": 6}, "times MaxPayloadInMB 20 is 120 MB"),
        ({"MaxConcurrentTransforms": 101}, "MaxConcurrentTransforms 101"),
        ({"BatchStrategy": "AllRecords"}, "batchStrategy"),
        ({"ModelClientConfig.InvocationsMaxRetries": 4}, "invocationsMaxRetries"),
        ({"ModelClientConfig.InvocationsTimeoutInSeconds": 3601}, "invocationsTimeoutInSeconds"),
        ({"Environment": {"SAGEMAKER_BATCH": "no"}}, "Environment.SAGEMAKER_BATCH is set by the platform"),
        ({"DataProcessing.InputFilter": "$..a"}, "InputFilter: '\\$..a' uses recursive descent"),
        ({"DataProcessing.OutputFilter": "a"}, "OutputFilter: 'a' does not begin with"),
        ({"DataProcessing.JoinSource": "Input", "TransformInput.ContentType": "image/png"}, "ContentType image/png"),
        ({"DataProcessing.JoinSource": "Input", "TransformInput.ContentType": None}, "ContentType None"),
        ({"DataProcessing.JoinSource": "Input", "TransformInput.SplitType": "RecordIO"}, "SplitType RecordIO"),
        ({"DataProcessing.JoinSource": "Input", "TransformOutput.Accept": "application/json"}, "joins records of one"),
        ({"DataProcessing.OutputFilter": "$[0]", "TransformOutput.Accept": "image/png"}, "Accept image/png"),
    ],
)
def test_a_request_that_cannot_be_honoured_is_refused_by_the_fields_name(
    sagemaker: Any, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ClientError, match=f"(?i){said}") as told:
        sagemaker.create_transform_job(**request(changes, "refused"))
    assert told.value.response["Error"]["Code"] == "ValidationException"
    assert told.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert sagemaker.list_transform_jobs(NameContains="refused")["TransformJobSummaries"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"MaxPayloadInMB": 0},
        {
            f"{S3}.S3DataType": "ManifestFile",
            f"{S3}.S3Uri": "s3://b/in/m.json",
            "TransformOutput.S3OutputPath": "s3://b/in/o",
        },
        {f"{S3}.S3Uri": "file:///d", "TransformOutput.S3OutputPath": "file:///d-out"},
        {"TransformInput.SplitType": None, "BatchStrategy": "MultiRecord"},
        {"TransformInput.ContentType": "application/json", "DataProcessing.JoinSource": "Input"},
        {"ExperimentConfig.ExperimentName": "e"},
    ],
)
def test_what_can_be_honoured_is_accepted(sagemaker: Any, changes: dict[str, Any]) -> None:
    name = fresh_name("accepted")
    assert sagemaker.create_transform_job(**request(changes, name))["TransformJobArn"].endswith(f"transform-job/{name}")
