"""What an endpoint's front does beyond whole answers, on real Ray Serve with real containers."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from botocore.exceptions import ClientError, EventStreamError
from docker.models.containers import Container
from integration.serving.serving_cluster import ServeCluster, process_tree

from raymaker.actors.artifacts import pack
from raymaker.actors.storage import ObjectStore
from raymaker.serving import proxy
from raymaker.serving.captured import CapturedQuery, CapturedRecord, Payload, read_captured
from raymaker.serving.endpoint import EndpointState
from raymaker.serving.spec import PARQUET, AsyncSpec, CaptureSpec
from support.faults import eventually
from support.webhook import Webhook

NAME = "streams"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the endpoint's data is captured to."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def patient(cluster: ServeCluster) -> Iterator[Any]:
    """A stock boto3 client that asks again where no replica could be reached, as it does by default."""
    with contextlib.closing(cluster.client(max_attempts=4)) as client:
        yield client


@pytest.fixture(scope="module")
def runtime(cluster: ServeCluster, kept: Path) -> Iterator[Any]:
    """A stock boto3 client, and the endpoint that it streams from."""
    capture = CaptureSpec(kept.as_uri(), csv_types=frozenset({"text/csv"}))
    cluster.deploy(replace(cluster.spec(NAME, invocation_timeout_s=5), capture=capture))
    cluster.wait_for(NAME, EndpointState.HEALTHY)
    with contextlib.closing(cluster.client()) as client:
        yield client
    cluster.delete(NAME)


@contextlib.contextmanager
def stream(runtime: Any, asked: str, **options: Any) -> Iterator[dict[str, Any]]:
    """A streamed answer, let go at the end."""
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName=NAME, Body=b"x", CustomAttributes=asked, **options
    )
    with contextlib.closing(answer["Body"]):
        yield answer


def invoke(runtime: Any, endpoint: str, body: bytes) -> bytes:
    """A whole answer; the proxy may hear of a new endpoint a moment after it is healthy."""

    def ask() -> list[bytes]:
        with contextlib.suppress(runtime.exceptions.ServiceUnavailable):
            return [runtime.invoke_endpoint(EndpointName=endpoint, Body=body)["Body"].read()]
        return []

    return eventually(ask, f"{endpoint} answers", 30)[0]


def containers(cluster: ServeCluster, engine: docker.DockerClient, endpoint: str) -> list[Container]:
    """The running containers of an endpoint."""
    return engine.containers.list(filters={"label": cluster.labels(endpoint)})


def bytes_of(events: Any) -> bytes:
    return b"".join(event["PayloadPart"]["Bytes"] for event in events)


def ask(runtime: Any, asked: str) -> bytes:
    said: bytes = runtime.invoke_endpoint(EndpointName=NAME, Body=b"x", CustomAttributes=asked)["Body"].read()
    return said


def test_pieces_arrive_while_the_model_is_still_speaking(runtime: Any) -> None:
    with stream(runtime, "stream 3 10 0.5", Accept="application/jsonlines") as answer:
        assert answer["ContentType"] == "application/jsonlines"
        assert answer["CustomAttributes"] == "streamed"
        assert answer["InvokedProductionVariant"] == "main"
        events = iter(answer["Body"])
        assert next(events)["PayloadPart"]["Bytes"] == b"0" * 10
        assert ask(runtime, "sent") in {b"1", b"2"}, "the first piece was here before the last was sent"
        assert bytes_of(events) == b"1" * 10 + b"2" * 10


def test_many_bytes_and_an_answer_with_a_length_come_whole(runtime: Any) -> None:
    with stream(runtime, "stream 64 1048576") as answer:
        assert sum(len(event["PayloadPart"]["Bytes"]) for event in answer["Body"]) == 64 * MIB
    with stream(runtime, "echo") as answer:
        assert bytes_of(answer["Body"]) == b"x"


@pytest.mark.parametrize(("asked", "why"), [("break 2 10", "broke off"), ("stream 2 10 8", "silent for longer")])
def test_a_model_that_breaks_off_or_falls_silent_is_told_in_the_stream(runtime: Any, asked: str, why: str) -> None:
    with stream(runtime, asked) as answer, pytest.raises(EventStreamError, match=why) as caught:
        bytes_of(answer["Body"])
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"


def test_an_error_before_the_stream_begins_is_a_model_error(runtime: Any) -> None:
    with pytest.raises(ClientError) as caught, stream(runtime, "status 507"):
        pytest.fail("an error is no stream")
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert caught.value.response["OriginalStatusCode"] == 507
    assert caught.value.response["OriginalMessage"] == "the model says no"


def test_a_client_that_does_not_read_holds_the_model_back_and_one_that_leaves_ends_its_answer(runtime: Any) -> None:
    left_before = ask(runtime, "left")
    seen: list[bytes] = []

    def stands_still() -> bool:
        seen.append(ask(runtime, "sent"))
        return len(seen) >= 5 and len(set(seen[-5:])) == 1

    with stream(runtime, "stream 256 1048576") as answer:
        next(iter(answer["Body"]))
        eventually(stands_still, "the model waits for its client", 30)
        assert int(seen[-1]) < 64, "what nobody reads is not kept for them"
    eventually(lambda: ask(runtime, "left") != left_before, "the container hears that its client left", 30)


def test_a_client_that_leaves_before_its_answer_ends_the_work_for_it(cluster: ServeCluster, runtime: Any) -> None:
    left_before = int(ask(runtime, "left"))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=30)) as connection:
        headers = {"X-Amzn-SageMaker-Custom-Attributes": "await-leave 4"}
        connection.request("POST", f"/endpoints/{NAME}/invocations", b"x", headers)
        time.sleep(1)
    eventually(lambda: int(ask(runtime, "left")) == left_before + 1, "the container hears that its client left", 30)
    (configuration,) = proxy.proxy_folder(cluster.site.home).rglob("haproxy.cfg")
    told = "http-request set-header x-request-disconnect-disabled ?1 if { path_beg /endpoints/ }"
    eventually(lambda: configuration.read_text().count(told) == 1, "Serve is told not to look for that itself", 10)


def test_a_container_that_dies_in_the_middle_is_told_in_the_stream(
    cluster: ServeCluster, runtime: Any, engine: docker.DockerClient
) -> None:
    with stream(runtime, "stream 100 10 0.5") as answer:
        events = iter(answer["Body"])
        next(events)
        (victim,) = containers(cluster, engine, NAME)
        victim.kill()
        with pytest.raises(EventStreamError, match="broke off"):
            bytes_of(events)
    assert ask(runtime, "echo") == b"x"


def captured(folder: Path, endpoint: str, inference_id: str | None = None) -> list[CapturedRecord]:
    return read_captured(ObjectStore(), folder.as_uri(), CapturedQuery(endpoint, inference_id=inference_id), 99, None)[
        0
    ]


def test_whole_and_streamed_answers_are_captured_behind_the_answer(runtime: Any, kept: Path) -> None:
    runtime.invoke_endpoint(EndpointName=NAME, Body=b"1,2", ContentType="text/csv", InferenceId="whole")
    with stream(runtime, "stream 2 3", InferenceId="streamed", Accept="a/b") as answer:
        bytes_of(answer["Body"])
    with pytest.raises(ClientError):
        runtime.invoke_endpoint(EndpointName=NAME, Body=b"x", CustomAttributes="status 500", InferenceId="failed")
    (streamed,) = eventually(lambda: captured(kept, NAME, "streamed"), "the answers are written", 60)
    assert streamed.answered == Payload(b"000111", "a/b")
    assert streamed.custom_attributes == "stream 2 3"
    (whole,) = captured(kept, NAME, "whole")
    assert (whole.asked, whole.answered) == (Payload(b"1,2", "text/csv"), Payload(b"1,2", "text/csv"))
    assert whole.variant == "main"
    assert captured(kept, NAME, "failed") == []


def test_captures_are_written_at_shutdown_and_a_place_that_refuses_hurts_no_answer(
    cluster: ServeCluster, runtime: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    places = {"parquet": tmp_path / "kept", "refused": tmp_path / "file" / "below"}
    for name, place in places.items():
        capture = CaptureSpec(place.as_uri(), format=PARQUET)
        cluster.deploy(replace(cluster.spec(name), capture=capture))
    for name in places:
        cluster.wait_for(name, EndpointState.HEALTHY)
        for number in range(5):
            assert invoke(runtime, name, b"%d" % number) == b"%d" % number
        cluster.delete(name)
    for name in places:
        cluster.wait_for(name, EndpointState.MISSING)
    assert sorted(record.asked.data for record in captured(places["parquet"], "parquet")) == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]
    told = [line["message"] for line in cluster.reporter.read() if line.get("endpoint") == "refused"]
    assert any("5 captured record(s) were lost: could not write" in message for message in told), told


def test_asynchronous_invocations_are_answered_told_and_survive_their_replica(
    cluster: ServeCluster,
    runtime: Any,
    engine: docker.DockerClient,
    tmp_path: Path,
    hook: Webhook,
) -> None:
    url, told = hook.url, hook.told
    place = AsyncSpec((tmp_path / "out").as_uri(), success_topic=url, error_topic=url, max_concurrent=2)
    cluster.deploy(replace(cluster.spec("later", invocation_timeout_s=5), asynchronous=place))
    cluster.wait_for("later", EndpointState.HEALTHY)
    invoke(runtime, "later", b"ready")
    (tmp_path / "in.csv").write_bytes(b"1,2")

    def begin(name: str, **options: Any) -> dict[str, Any]:
        location = {} if "Body" in options else {"InputLocation": (tmp_path / name).as_uri()}
        accepted: dict[str, Any] = runtime.invoke_endpoint_async(EndpointName="later", **location, **options)
        return accepted

    def written(uri: str) -> bytes | None:
        path = Path(uri.removeprefix("file://"))
        return path.read_bytes() if path.exists() else None

    def notice(answer: dict[str, Any]) -> dict[str, Any]:
        wanted = answer["InferenceId"]
        return eventually(lambda: next((n for n in told if n["inferenceId"] == wanted), None), "the webhook hears", 60)

    good = begin("in.csv", ContentType="text/csv", InferenceId="good")
    assert good["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert good["InferenceId"] == "good"
    assert notice(good)["responseParameters"] == {"contentType": "text/csv", "outputLocation": good["OutputLocation"]}
    assert written(good["OutputLocation"]) == b"1,2"

    gone, wrong = begin("not-there.csv"), begin("", Body=b"x", CustomAttributes="status 500")
    assert "not-there.csv" in notice(gone)["failureReason"]
    assert notice(wrong)["invocationStatus"] == "Failed"
    assert b"the model says no" in (written(wrong["FailureLocation"]) or b"")

    slow = begin("", Body=b"slow", CustomAttributes="sleep 8", InvocationTimeoutSeconds=60)
    waiting = [begin("", Body=b"%d" % number) for number in range(3)]
    time.sleep(1)
    (victim,) = containers(cluster, engine, "later")
    (replica,) = [pid for pid in process_tree(cluster.pid) if b"ServeReplica:endpoint-later" in title(pid)]
    os.kill(replica, signal.SIGKILL)
    victim.remove(force=True)  # the reaper, which is not here, would
    for number, answer in enumerate(waiting):
        eventually(lambda: written(answer["OutputLocation"]), "what waited is answered", 90)  # noqa: B023 - called here
        assert written(answer["OutputLocation"]) == b"%d" % number
    eventually(lambda: written(slow["OutputLocation"]), "what was being answered is answered again", 120)
    assert notice(slow)["invocationStatus"] == "Completed"
    cluster.delete("later")


def title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_many_models_are_loaded_on_demand_evicted_and_told_when_they_are_not_there(
    cluster: ServeCluster, patient: Any, engine: docker.DockerClient, tmp_path: Path
) -> None:
    store = ObjectStore()
    for number in range(8):
        folder = tmp_path / f"source-{number}"
        folder.mkdir()
        (folder / "weights.txt").write_text(f"weights {number}")
        pack(folder, store, (tmp_path / "models" / "eu" / f"{number}.tar.gz").as_uri())
    (tmp_path / "models" / "bad.tar.gz").write_text("no archive")
    options = {"model_uri": (tmp_path / "models").as_uri(), "multi_model": True, "environment": {"ROOM": "2"}}
    cluster.deploy(cluster.spec("many", **options))
    cluster.wait_for("many", EndpointState.HEALTHY)

    def ask(model: str, body: bytes = b"x", asked: str = "weights") -> bytes:
        answer = patient.invoke_endpoint(EndpointName="many", Body=body, TargetModel=model, CustomAttributes=asked)
        said: bytes = answer["Body"].read()
        return said

    def refusal(**options: Any) -> Any:
        with pytest.raises(ClientError) as caught:
            patient.invoke_endpoint(EndpointName="many", Body=b"x", **options)
        return caught.value

    def asked_once() -> bool:
        with contextlib.suppress(patient.exceptions.ServiceUnavailable):
            return ask("eu/0.tar.gz") == b"weights 0"
        return False

    eventually(asked_once, "the endpoint answers", 30)
    for number in [*range(8), 0, 7]:
        assert ask(f"eu/{number}.tar.gz") == f"weights {number}".encode()
    assert ask("eu/7.tar.gz", asked="loaded") == b"2", "the container has room for two, and holds two"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, ["eu/3.tar.gz"] * 8))
    assert answers == [b"weights 3"] * 8
    assert ask("eu/3.tar.gz", asked="loads") == b"2", "eight at once have loaded it once more, not eight times"

    for options, said in (
        ({}, "TargetModel is missing"),
        ({"TargetModel": "eu/9.tar.gz"}, "eu/9.tar.gz is not there"),
        ({"TargetModel": "../models/eu/1.tar.gz"}, "leads out"),
        ({"TargetModel": "bad.tar.gz"}, "is no gzip archive"),
    ):
        error = refusal(**options)
        assert isinstance(error, patient.exceptions.ValidationError)
        assert said in str(error)

    (victim,) = containers(cluster, engine, "many")
    victim.kill()
    with contextlib.suppress(docker.errors.NotFound):
        victim.wait()
    assert ask("eu/3.tar.gz") == b"weights 3", "the new container is told of what the old one held"
    cluster.delete("many")
