"""The test bed's own parts answer, each over its real wire."""

from __future__ import annotations

import http.client

import docker
import sqlalchemy

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


def test_the_database_of_each_kind_is_empty_and_writable(database_url: str) -> None:
    database = sqlalchemy.create_engine(database_url)
    with database.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE kept (value INTEGER)"))
        connection.execute(sqlalchemy.text("INSERT INTO kept VALUES (7)"))
        assert connection.execute(sqlalchemy.text("SELECT value FROM kept")).scalar_one() == 7
    database.dispose()
