"""S3 over the wire: moto's server in a process of its own, so that containers' actors and boto3 reach it alike."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from support.servers import free_port, running_server

_numbers = itertools.count(1)


@dataclass(frozen=True)
class ObjectStore:
    """Where the store is and how to get in."""

    endpoint_url: str
    access_key: str = "test-access-key"
    secret_key: str = "test-secret-key"
    region: str = "us-east-1"
    log: Path | None = None

    def client(self) -> Any:
        """A new boto3 S3 client; whoever asked for it closes it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def bucket(self) -> str:
        """Make a bucket that nothing else uses and return its name."""
        name = f"test-bucket-{next(_numbers)}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    def put(self, bucket: str, key: str, content: bytes, **options: Any) -> None:
        """Store an object; `options` are PutObject's."""
        client = self.client()
        client.put_object(Bucket=bucket, Key=key, Body=content, **options)
        client.close()

    def read_count(self, path: str) -> int:
        """How often `bucket/key` was read, in whole or in part, as the server's log has it."""
        assert self.log is not None
        return self.log.read_text(errors="replace").count(f"GET /{path} HTTP")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An object store that starts empty."""
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "log"
    with running_server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, log):
        yield ObjectStore(f"http://127.0.0.1:{port}", log=log)
