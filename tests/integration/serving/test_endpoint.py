"""Endpoints on real Ray Serve with real containers, as a stock boto3 client meets them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from botocore.exceptions import ClientError
from docker.models.containers import Container
from integration.serving.load import Load
from integration.serving.serving_cluster import ServeCluster, listening_addresses, process_tree

from raymaker.serving.endpoint import EndpointState
from support.faults import eventually

WENT_THROUGH_SERVE = "x-request-id"
"""The header that Serve's own middleware puts into answers."""


@pytest.fixture(scope="module")
def echo(cluster: ServeCluster) -> str:
    """An endpoint that echoes."""
    cluster.deploy(cluster.spec("echo", max_body_bytes=1024 * 1024, invocation_timeout_s=3))
    cluster.wait_for("echo", EndpointState.HEALTHY)
    return "echo"


@pytest.fixture
def runtime(cluster: ServeCluster) -> Iterator[Any]:
    """A stock boto3 client that does not retry, so that every answer is seen."""
    with contextlib.closing(cluster.client()) as client:
        yield client


def containers(cluster: ServeCluster, engine: docker.DockerClient, endpoint: str) -> list[Container]:
    """The running containers of an endpoint."""
    return engine.containers.list(filters={"label": cluster.labels(endpoint)}, ignore_removed=True)


def refused(call: Any, **arguments: Any) -> ClientError:
    """The error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value


def test_a_body_of_any_bytes_comes_back_with_its_type_and_variant(runtime: Any, echo: str) -> None:
    answer = runtime.invoke_endpoint(EndpointName=echo, Body=bytes(range(256)), ContentType="text/csv; charset=utf-8")
    assert answer["Body"].read() == bytes(range(256))
    assert answer["ContentType"] == "text/csv; charset=utf-8"
    assert answer["InvokedProductionVariant"] == "main"
    assert answer["CustomAttributes"] == "echoed"
    assert answer["ResponseMetadata"]["RequestId"]


def test_requests_go_past_serves_own_work_once_haproxy_knows_the_replica(runtime: Any, echo: str) -> None:
    """At first HAProxy may ask Serve's fallback proxy, which this cluster has in place of the platform's own."""

    def went_through_serve() -> bool:
        answer = runtime.invoke_endpoint(EndpointName=echo, Body=b"x")
        return WENT_THROUGH_SERVE in answer["ResponseMetadata"]["HTTPHeaders"]

    eventually(lambda: not went_through_serve(), "a request past Serve", timeout_s=30)


def test_a_request_keeps_the_id_that_its_client_gave_it(cluster: ServeCluster, echo: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{cluster.port}/endpoints/{echo}/invocations", b"x", {"X-Request-ID": "mine"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["x-amzn-RequestId"] == "mine"


def test_the_container_sees_the_wires_headers_and_no_others(runtime: Any, echo: str) -> None:
    answer = runtime.invoke_endpoint(
        EndpointName=echo,
        Body=b"x",
        Accept="application/json",
        CustomAttributes="headers",
        InferenceId="id 7",
        SessionId="session-1",
        TargetVariant="main",
    )
    seen = answer["Body"].read().decode().lower()
    for line in ("accept: application/json", "inference-id: id 7", "session-id: session-1", "target-variant: main"):
        assert line in seen
    assert "authorization" not in seen


def test_an_error_of_the_model_is_a_model_error_with_its_words(runtime: Any, cluster: ServeCluster, echo: str) -> None:
    error = refused(runtime.invoke_endpoint, EndpointName=echo, Body=b"x", CustomAttributes="status 500")
    assert isinstance(error, runtime.exceptions.ModelError)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error.response["OriginalStatusCode"] == 500
    assert error.response["OriginalMessage"] == "the model says no"
    assert error.response["LogStreamArn"].startswith(
        "arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/echo:log-stream:main/"
    )


def test_a_model_that_takes_longer_than_it_may_is_a_model_error(runtime: Any, echo: str) -> None:
    error = refused(runtime.invoke_endpoint, EndpointName=echo, Body=b"x", CustomAttributes="sleep 30")
    assert isinstance(error, runtime.exceptions.ModelError)
    assert "longer than 3 s" in error.response["Error"]["Message"]


def test_a_body_over_the_limit_is_refused_declared_or_not(runtime: Any, cluster: ServeCluster, echo: str) -> None:
    error = refused(runtime.invoke_endpoint, EndpointName=echo, Body=b"x" * (1024 * 1024 + 1))
    assert isinstance(error, runtime.exceptions.ValidationError)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=30) as connection:
        connection.sendall(
            b"POST /endpoints/echo/invocations HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_at_the_limit_is_taken(runtime: Any, echo: str) -> None:
    body = os.urandom(1024 * 1024)
    assert runtime.invoke_endpoint(EndpointName=echo, Body=body)["Body"].read() == body


def test_what_this_endpoint_cannot_honour_is_refused_by_name(runtime: Any, echo: str) -> None:
    error = refused(runtime.invoke_endpoint, EndpointName=echo, Body=b"x", TargetVariant="canary")
    assert isinstance(error, runtime.exceptions.ValidationError)
    assert "canary" in error.response["Error"]["Message"]


def test_a_sender_that_does_not_end_its_header_is_cut_off(cluster: ServeCluster, echo: str) -> None:
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=30) as connection:
        connection.sendall(b"POST /endpoints/echo/invocations HTTP/1.1\r\nHost:")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_nothing_listens_outside_loopback(cluster: ServeCluster, echo: str) -> None:
    addresses = listening_addresses(process_tree(cluster.pid))
    assert ("127.0.0.1", cluster.port) in addresses
    assert {host for host, _ in addresses} == {"127.0.0.1"}


def test_the_replica_tells_its_start_and_its_containers_log(cluster: ServeCluster, echo: str) -> None:
    reported = cluster.reporter.read()
    assert any("The scoring container answers" in line.get("message", "") for line in reported)
    logs = [line for line in reported if line.get("group") == "/aws/sagemaker/Endpoints/echo"]
    assert logs[0]["lines"] == ["starting in mode ''"]
    assert logs[0]["stream"].startswith("main/")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_container_is_replaced_and_only_what_it_held_is_lost(
    cluster: ServeCluster, runtime: Any, echo: str, engine: docker.DockerClient, number: signal.Signals
) -> None:
    (victim,) = containers(cluster, engine, echo)
    held: list[ClientError] = []
    holder = threading.Thread(
        target=lambda: held.append(
            refused(runtime.invoke_endpoint, EndpointName=echo, Body=b"x", CustomAttributes="sleep 2.5")
        )
    )
    holder.start()
    time.sleep(1)
    victim.kill(number.value)
    with contextlib.suppress(docker.errors.NotFound):  # its successor may have taken its place already
        victim.wait()
    assert runtime.invoke_endpoint(EndpointName=echo, Body=b"after")["Body"].read() == b"after"
    holder.join()
    assert isinstance(held[0], runtime.exceptions.ModelError)
    assert "closed the connection" in held[0].response["Error"]["Message"]
    (successor,) = containers(cluster, engine, echo)
    assert successor.id != victim.id
    assert any("ended: exit code" in message for message in cluster.reporter.failures(echo))


def test_a_container_that_stops_answering_ping_is_replaced(
    cluster: ServeCluster, runtime: Any, echo: str, engine: docker.DockerClient
) -> None:
    (victim,) = containers(cluster, engine, echo)
    runtime.invoke_endpoint(EndpointName=echo, Body=b"x", CustomAttributes="hang")
    deadline = time.monotonic() + 60
    while [found.id for found in containers(cluster, engine, echo)] in ([], [victim.id]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert runtime.invoke_endpoint(EndpointName=echo, Body=b"after")["Body"].read() == b"after"
    assert any("no longer answers GET /ping" in message for message in cluster.reporter.failures(echo))


def test_a_model_that_crashes_its_container_is_told_so_and_the_next_request_is_served(
    cluster: ServeCluster, runtime: Any, echo: str, engine: docker.DockerClient
) -> None:
    (victim,) = containers(cluster, engine, echo)
    error = refused(runtime.invoke_endpoint, EndpointName=echo, Body=b"x", CustomAttributes="exit 7")
    assert isinstance(error, runtime.exceptions.ModelError)
    assert "closed the connection" in error.response["Error"]["Message"]
    with contextlib.suppress(docker.errors.NotFound):  # its successor may have taken its place already
        victim.wait()
    assert runtime.invoke_endpoint(EndpointName=echo, Body=b"after")["Body"].read() == b"after"


def test_the_model_is_unpacked_where_training_wrote_it_and_more_of_them_beside_it(
    cluster: ServeCluster, runtime: Any, tmp_path: Path
) -> None:
    for number, name in enumerate(("own", "folder", "packed")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.txt").write_text(f"{number} 2 3")
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "packed", ".")
    more = {"a": (tmp_path / "folder").as_uri(), "b": (tmp_path / "packed.tar.gz").as_uri()}
    cluster.deploy(cluster.spec("with-model", model_uri=(tmp_path / "own").as_uri(), additional_models=more))
    cluster.wait_for("with-model", EndpointState.HEALTHY)
    beside = "../additional-model-data-sources"
    for number, name in enumerate(("weights.txt", f"{beside}/a/weights.txt", f"{beside}/b/weights.txt")):
        answer = runtime.invoke_endpoint(EndpointName="with-model", Body=b"", CustomAttributes=f"model {name}")
        assert answer["Body"].read() == f"{number} 2 3".encode()
    cluster.delete("with-model")
    cluster.wait_for("with-model", EndpointState.MISSING)


def test_a_first_deploy_that_fails_says_why(cluster: ServeCluster, engine: docker.DockerClient) -> None:
    cluster.deploy(cluster.spec("broken", environment={"MODE": "exit"}))
    seen = cluster.wait_for("broken", EndpointState.FAILED)
    assert sum(seen.running_counts.values()) == 0
    assert "exit code 3" in seen.message
    (reason, *_) = cluster.reporter.failures("broken")
    assert "exit code 3" in reason
    assert "starting in mode 'exit'" in reason
    cluster.delete("broken")
    cluster.wait_for("broken", EndpointState.MISSING)
    assert containers(cluster, engine, "broken") == []
    assert not list((cluster.site.home / "endpoints").glob("scoring-broken-*"))


def test_an_image_that_is_not_there_fails_with_its_name(cluster: ServeCluster) -> None:
    cluster.deploy(cluster.spec("no-image", image="127.0.0.1:1/nowhere:latest"))
    cluster.wait_for("no-image", EndpointState.FAILED)
    assert "127.0.0.1:1/nowhere:latest" in cluster.reporter.failures("no-image")[0]
    cluster.delete("no-image")
    cluster.wait_for("no-image", EndpointState.MISSING)


def test_updates_good_and_bad_lose_no_request_and_deletion_leaves_nothing(
    cluster: ServeCluster, engine: docker.DockerClient
) -> None:
    name = "rolling"
    cluster.deploy(cluster.spec(name, 1, environment={"VERSION": "one"}))
    cluster.wait_for(name, EndpointState.HEALTHY)
    with Load(cluster.port, name) as load:
        load.wait_for(b"one")
        cluster.deploy(cluster.spec(name, 2, environment={"VERSION": "two"}))
        assert cluster.observe(name).state is EndpointState.DEPLOYING
        cluster.wait_for(name, EndpointState.HEALTHY)
        load.wait_for(b"two")

        cluster.deploy(cluster.spec(name, 3, environment={"MODE": "no-server"}, startup_timeout_s=1))
        seen = cluster.wait_for(name, EndpointState.FAILED)
        assert seen.running_counts == {"front": 1}
        load.wait_for(b"two")
        assert "did not answer GET /ping" in cluster.reporter.failures(name)[-1]

        cluster.deploy(cluster.spec(name, 4, environment={"VERSION": "two again"}))
        cluster.wait_for(name, EndpointState.HEALTHY)
        load.wait_for(b"two again")
        assert load.failures == []
    cluster.delete(name)
    cluster.wait_for(name, EndpointState.MISSING)
    assert containers(cluster, engine, name) == []


def test_a_replica_that_is_killed_is_replaced_by_serve(
    cluster: ServeCluster, runtime: Any, engine: docker.DockerClient
) -> None:
    cluster.deploy(cluster.spec("mortal"))
    cluster.wait_for("mortal", EndpointState.HEALTHY)
    (victim,) = containers(cluster, engine, "mortal")
    replica = next(
        pid
        for pid in process_tree(cluster.pid)
        if b"ServeReplica:endpoint-mortal" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(replica, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(containers(cluster, engine, "mortal")) < 2:  # the reaper, which is not here, removes the orphan
        assert time.monotonic() < deadline
        time.sleep(0.2)
    victim.remove(force=True)
    cluster.wait_for("mortal", EndpointState.HEALTHY)
    assert runtime.invoke_endpoint(EndpointName="mortal", Body=b"x")["Body"].read() == b"x"
    folders = list((cluster.site.home / "endpoints").glob("scoring-mortal-*"))
    assert len(folders) == 1
    cluster.delete("mortal")
    cluster.wait_for("mortal", EndpointState.MISSING)
