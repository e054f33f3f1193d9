"""The test bed's own parts answer, each over its real wire."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import docker
import pytest
import sqlalchemy
from pyarrow import fs

from support.faults import eventually
from support.gate import Gate
from support.s3 import ObjectStore


def test_the_engine_runs_the_base_image_with_numpy(engine: docker.DockerClient, base_image: str) -> None:
    output = engine.containers.run(
        base_image, ["python3", "-c", "import numpy; print(numpy.arange(4).sum())"], remove=True, network_mode="none"
    )
    assert output.strip() == b"6"


def test_the_registry_speaks_the_distribution_protocol(registry: str) -> None:
    connection = http.client.HTTPConnection(registry)
    connection.request("GET", "/v2/")
    assert connection.getresponse().headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    connection.close()


def test_the_object_store_keeps_what_is_put_into_a_fresh_bucket(s3: ObjectStore) -> None:
    bucket, client = s3.bucket(), s3.client()
    client.put_object(Bucket=bucket, Key="a/b", Body=b"kept")
    assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"kept"
    client.close()


@pytest.fixture
def gate(s3: ObjectStore) -> Iterator[Gate]:
    with contextlib.closing(Gate(s3.endpoint_url)) as made:
        yield made


def test_the_gate_passes_on_what_boto3_and_pyarrow_ask_of_the_object_store(s3: ObjectStore, gate: Gate) -> None:
    bucket, content = s3.bucket(), bytes(range(256)) * 40_000
    files = fs.S3FileSystem(
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        region=s3.region,
        scheme="http",
        endpoint_override=urlsplit(gate.endpoint_url).netloc,
    )
    with files.open_output_stream(f"{bucket}/large", None) as writer:
        writer.write(content)
    with files.open_input_file(f"{bucket}/large") as reader:
        reader.seek(1000)
        assert reader.read(9_000_000) == content[1000:9_001_000]
    with contextlib.closing(ObjectStore(gate.endpoint_url).client()) as client:
        assert client.head_object(Bucket=bucket, Key="large")["ContentLength"] == len(content)
        client.put_object(Bucket=bucket, Key="small", Body=b"small")
        assert client.get_object(Bucket=bucket, Key="small", Range="bytes=1-2")["Body"].read() == b"ma"
        with pytest.raises(client.exceptions.NoSuchKey):
            client.get_object(Bucket=bucket, Key="none")


def test_what_the_gate_holds_arrives_when_it_is_let_go_and_never_where_its_sender_hangs_up(
    s3: ObjectStore, gate: Gate
) -> None:
    bucket = s3.bucket()
    client, gated = s3.client(), ObjectStore(gate.endpoint_url).client()
    address = (urlsplit(gate.endpoint_url).hostname, urlsplit(gate.endpoint_url).port)

    def keys() -> list[str]:
        return [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    with ThreadPoolExecutor(1) as threads:
        with gate.hold("PUT", "held") as hold:
            put = threads.submit(gated.put_object, Bucket=bucket, Key="held", Body=b"late")
            gated.put_object(Bucket=bucket, Key="other", Body=b"soon")
            assert hold.wait_until_held() == [f"PUT /{bucket}/held"]
            with socket.create_connection(address) as dying:
                dying.sendall(f"PUT /{bucket}/held-too HTTP/1.1\r\nHost: any\r\nContent-Length: 4\r\n\r\ndead".encode())
                hold.wait_until_held(2)
            eventually(lambda: len(hold.held) == 1, "the gate sees that a client is gone")
            assert keys() == ["other"]
        put.result()
    assert keys() == ["held", "other"]
    client.close()
    gated.close()


def test_the_database_of_each_kind_is_empty_and_writable(database_url: str) -> None:
    database = sqlalchemy.create_engine(database_url)
    with database.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE kept (value INTEGER)"))
        connection.execute(sqlalchemy.text("INSERT INTO kept VALUES (7)"))
        assert connection.execute(sqlalchemy.text("SELECT value FROM kept")).scalar_one() == 7
    database.dispose()
