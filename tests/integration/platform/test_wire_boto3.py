"""Real boto3 clients, stock and with the extensions, over real HTTP against the frontend."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError, WaiterError

from raymaker.actors.runtime.base import LogLine
from raymaker.platform.app import create_app
from raymaker.platform.errors import ValidationException
from raymaker.platform.logstore import LogStore
from raymaker.platform.operations.registry import HANDLERS
from raymaker.platform.shapes import MODEL_PATH
from support.frontend import make_context, serve_app

GROUP, STREAM = "/aws/sagemaker/TrainingJobs", "digits-1/algo-1-1700000000"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
JOB = {
    "TrainingJobName": "digits-1",
    "RoleArn": "arn:aws:iam::000000000000:role/raymaker",
    "AlgorithmSpecification": {"TrainingImage": "digits:1", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "file:///models"},
    "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}


class Jobs:
    """Operations over a dictionary, enough to see what the wire does to requests and answers."""

    def __init__(self) -> None:
        self.requests: dict[str, dict[str, Any]] = {}
        self.statuses = ["InProgress", "InProgress", "Completed"]

    def create(self, _, request):
        self.requests[request["TrainingJobName"]] = request
        return {"TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{request['TrainingJobName']}"}

    def describe(self, _, request):
        name = request["TrainingJobName"]
        if name not in self.requests:
            raise ValidationException(f"Requested resource not found: training job {name}.")
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        created = self.requests[name]
        return {**created, "TrainingJobStatus": status, "CreationTime": MOMENT, "FailureReason": None}

    def metrics(self, _, request):
        start = int(request.get("NextToken", 0))
        page = [
            {"MetricName": "loss", "Value": v, "Timestamp": MOMENT} for v in (0.5, math.inf, 0.25)[start : start + 2]
        ]
        return {"Metrics": page, "NextToken": "2" if start == 0 else None}

    def events(self, _, request):
        return {"Events": [{"Time": MOMENT, "Kind": "Queued", "Message": f"waits: {request['TrainingJobName']}"}]}

    def deploy(self, _, request):
        return {
            "EndpointName": request.get("EndpointName", "made-up"),
            "EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/made-up",
            "ModelName": "m",
            "EndpointConfigName": "c",
        }


@pytest.fixture
def context(home):
    return make_context(home)


@pytest.fixture
def url(context) -> Iterator[str]:
    """The frontend's address; its limits are small, so that they are quickly reached."""
    with serve_app(create_app(context, body_limit_bytes=64 * 1024, receipt_deadline_s=0.3)) as address:
        yield address


@pytest.fixture
def jobs(url, monkeypatch) -> Jobs:
    """A few operations in place of the real ones."""
    jobs = Jobs()
    for name, handler in {
        "CreateTrainingJob": jobs.create,
        "DescribeTrainingJob": jobs.describe,
        "GetTrainingMetrics": jobs.metrics,
        "ListEvents": jobs.events,
        "Deploy": jobs.deploy,
    }.items():
        monkeypatch.setitem(HANDLERS, name, handler)
    return jobs


@contextlib.contextmanager
def client(service: str, url: str) -> Iterator[Any]:
    """A client as any user makes it: what it finds is botocore's own model, and what AWS_DATA_PATH leads to."""
    session = boto3.Session("local", "local", region_name="us-east-1", botocore_session=botocore.session.get_session())
    made = session.client(service, endpoint_url=url, config=Config(retries={"total_max_attempts": 1}))
    with contextlib.closing(made):
        yield made


@pytest.fixture
def stock(url, monkeypatch):
    """A client that knows nothing of the extensions."""
    monkeypatch.delenv("AWS_DATA_PATH", raising=False)
    with client("sagemaker", url) as made:
        yield made


@pytest.fixture
def extended(url, monkeypatch):
    """A client that finds the extensions."""
    monkeypatch.setenv("AWS_DATA_PATH", str(MODEL_PATH))
    with client("sagemaker", url) as made:
        yield made


def test_a_stock_client_creates_and_describes_a_job(stock, jobs):
    assert stock.create_training_job(**JOB)["TrainingJobArn"].endswith(":training-job/digits-1")
    assert jobs.requests == {"digits-1": JOB}
    described = stock.describe_training_job(TrainingJobName="digits-1")
    assert described["CreationTime"] == MOMENT
    assert described["ResponseMetadata"]["RequestId"]
    assert {name: described[name] for name in JOB} == JOB
    assert "FailureReason" not in described


def test_the_real_operations_answer_a_stock_client(stock, context):
    """Every answer below is serialised from a real record; one that is not of its shape would be a 500."""
    context.database.migrate()
    stock.create_training_job(**JOB, Tags=[{"Key": "größe", "Value": "1"}])
    with pytest.raises(stock.exceptions.ResourceInUse):
        stock.create_training_job(**JOB)
    assert stock.describe_training_job(TrainingJobName="digits-1")["TrainingJobStatus"] == "InProgress"
    (listed,) = stock.list_training_jobs(CreationTimeAfter=MOMENT)["TrainingJobSummaries"]
    assert listed["TrainingJobName"] == "digits-1"
    assert stock.list_tags(ResourceArn=listed["TrainingJobArn"])["Tags"] == [{"Key": "größe", "Value": "1"}]
    stock.stop_training_job(TrainingJobName="digits-1")
    waiter = stock.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName="digits-1", WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    stock.create_model(ModelName="m", PrimaryContainer={"Image": "digits:1"})
    variant = {"VariantName": "all", "ModelName": "m", "InstanceType": "local", "InitialInstanceCount": 1}
    stock.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    stock.create_endpoint(EndpointName="e", EndpointConfigName="c")
    assert stock.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Creating"
    assert stock.describe_endpoint_config(EndpointConfigName="c")["ProductionVariants"][0]["InstanceType"] == "local"


def test_a_stock_waiter_waits_until_the_job_has_ended_and_fails_where_there_is_none(stock, jobs):
    stock.create_training_job(**JOB)
    waiter = stock.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName="digits-1", WaiterConfig={"Delay": 0, "MaxAttempts": 5})
    assert jobs.statuses == ["Completed"]
    with pytest.raises(WaiterError, match="Matched expected service error code: ValidationException"):
        waiter.wait(TrainingJobName="nowhere", WaiterConfig={"Delay": 0, "MaxAttempts": 5})


def test_a_wrong_field_is_a_validation_exception_at_the_client(stock, jobs):
    with pytest.raises(ClientError, match="1 validation error detected: Value 'a_b' at 'trainingJobName'") as raised:
        stock.create_training_job(**{**JOB, "TrainingJobName": "a_b"})
    assert raised.value.response["Error"]["Code"] == "ValidationException"
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert jobs.requests == {}


def test_an_operation_that_is_not_answered_is_named(stock):
    with pytest.raises(ClientError, match="'SageMaker.ListNotebookInstances' is not supported by raymaker") as raised:
        stock.list_notebook_instances()
    assert raised.value.response["Error"]["Code"] == "UnknownOperationException"


def test_a_stock_client_does_not_know_the_extensions_and_an_extended_one_does(stock, extended, jobs):
    source = {"SourceUri": "file:///src", "EntryPoint": "train.py", "BaseImage": "base:1"}
    job = {**JOB, "AlgorithmSpecification": {"TrainingInputMode": "File", "AlgorithmSource": source}}
    with pytest.raises(ParamValidationError, match="AlgorithmSource"):
        stock.create_training_job(**job)
    assert not hasattr(stock, "deploy")
    extended.create_training_job(**job)
    described = extended.describe_training_job(TrainingJobName="digits-1")
    assert described["AlgorithmSpecification"]["AlgorithmSource"] == source
    assert extended.deploy(TrainingJobName="digits-1", InstanceType="local")["EndpointName"] == "made-up"
    events = extended.list_events(TrainingJobName="digits-1")["Events"]
    assert events == [{"Time": MOMENT, "Kind": "Queued", "Message": "waits: digits-1"}]


def test_a_stock_client_asks_for_many_instances_and_an_extended_one_for_many_containers_too(stock, extended, jobs):
    job = {**JOB, "ResourceConfig": {"InstanceType": "local", "InstanceCount": 2, "VolumeSizeInGB": 1}}
    stock.create_training_job(**job)
    resources = {**job["ResourceConfig"], "ContainersPerInstance": 2, "PlacementStrategy": "Spread"}
    elastic = {**resources, "MinInstanceCount": 1, "MaxInstanceCount": 3}
    extended.create_training_job(**{**job, "TrainingJobName": "digits-2", "ResourceConfig": elastic})
    assert extended.describe_training_job(TrainingJobName="digits-2")["ResourceConfig"] == elastic
    with pytest.raises(ParamValidationError, match="ContainersPerInstance"):
        stock.create_training_job(**{**job, "ResourceConfig": resources})


def test_an_extended_client_pages_through_metrics_beside_what_is_public(extended, jobs):
    pages = extended.get_paginator("get_training_metrics").paginate(TrainingJobName="digits-1")
    assert [metric["Value"] for metric in pages.search("Metrics[]")] == [0.5, "Infinity", 0.25]
    assert extended.can_paginate("list_training_jobs")
    assert extended.can_paginate("search")
    assert extended.can_paginate("list_events")


def test_every_caller_is_the_account(url):
    with client("sts", url) as sts:
        identity = sts.get_caller_identity()
        assert (identity["Account"], identity["Arn"]) == ("123456789012", "arn:aws:iam::123456789012:root")
        with pytest.raises(ClientError, match="'GetSessionToken' is not supported by raymaker"):
            sts.get_session_token()


def test_a_log_is_found_and_followed(url, context):
    store = LogStore(context.settings.home_path / "logs")
    store.append(GROUP, STREAM, [LogLine(n * 1_000_000, f"line {n} ☂") for n in range(1, 6)])
    with client("logs", url) as logs:
        (stream,) = logs.describe_log_streams(
            logGroupName=GROUP, logStreamNamePrefix="digits-1/", orderBy="LogStreamName", limit=1
        )["logStreams"]
        assert (stream["logStreamName"], stream["lastEventTimestamp"]) == (STREAM, 5)
        first = logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM, startFromHead=True, limit=3)
        assert [event["message"] for event in first["events"]] == ["line 1 ☂", "line 2 ☂", "line 3 ☂"]
        token = first["nextForwardToken"]
        rest = logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM, nextToken=token)
        assert [event["timestamp"] for event in rest["events"]] == [4, 5]
        end = logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM, nextToken=rest["nextForwardToken"])
        assert (end["events"], end["nextForwardToken"]) == ([], rest["nextForwardToken"])
        assert [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]] == [GROUP]


def test_streams_are_paged_and_ordered(url, context):
    store = LogStore(context.settings.home_path / "logs")
    for number in range(5):
        store.append(GROUP, f"job-{number}/algo-1", [LogLine((9 - number) * 1_000_000, "x")])
    with client("logs", url) as logs:
        pages = logs.get_paginator("describe_log_streams").paginate(
            logGroupName=GROUP, PaginationConfig={"PageSize": 2}
        )
        assert [name[:5] for name in pages.search("logStreams[].logStreamName")] == [f"job-{n}" for n in range(5)]
        newest = logs.describe_log_streams(logGroupName=GROUP, orderBy="LastEventTime", descending=True, limit=1)
        assert newest["logStreams"][0]["logStreamName"] == "job-0/algo-1"


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("describe_log_streams", {"logGroupName": "/nowhere"}, "ResourceNotFoundException"),
        ("get_log_events", {"logGroupName": GROUP, "logStreamName": "nowhere"}, "ResourceNotFoundException"),
        (
            "get_log_events",
            {"logGroupName": GROUP, "logStreamName": "x", "nextToken": "x"},
            "InvalidParameterException",
        ),
        ("get_log_events", {"logStreamName": "x"}, "InvalidParameterException"),
        ("describe_log_streams", {"logGroupName": "no spaces"}, "InvalidParameterException"),
        ("describe_log_groups", {"logGroupNamePattern": "x"}, "InvalidParameterException"),
    ],
)
def test_logs_errors_are_those_that_its_clients_catch(url, operation, arguments, code):
    with client("logs", url) as logs, pytest.raises(ClientError) as raised:
        getattr(logs, operation)(**arguments)
    assert isinstance(raised.value, getattr(logs.exceptions, code))


def _connect(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10)


def _answer(connection: socket.socket) -> tuple[int, Any, bool]:
    """Read one answer; gives its status, its document, and whether the server then hung up."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    document = json.loads(response.read())
    return response.status, document, connection.recv(1) == b""


def test_a_body_over_the_limit_is_refused_while_it_is_still_being_sent(url):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: SageMaker.CreateTrainingJob\r\n"
    with _connect(url) as declared:
        declared.sendall(head + b"Content-Length: 10000000\r\n\r\n{")
        assert _answer(declared)[:2] == (413, {"__type": "RequestTooLarge", "message": _over_limit()})
    with _connect(url) as chunked:
        chunked.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        chunked.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n1\r\nx\r\n")
        assert _answer(chunked)[:2] == (413, {"__type": "RequestTooLarge", "message": _over_limit()})


def _over_limit() -> str:
    return "the body is over the limit of 65536 bytes; send less"


def test_a_slow_sender_is_refused_at_the_deadline_and_its_connection_ends(url):
    with _connect(url) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: SageMaker.X\r\nContent-Length: 100\r\n\r\n{")
        status, document, hung_up = _answer(slow)
    assert (status, document["__type"], hung_up) == (408, "RequestTimeout", True)
