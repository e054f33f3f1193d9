"""A whole platform of its own, on spare ports and in a home of its own, run through the command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import docker
import pytest
from botocore.config import Config

from support.engine import BASE_IMAGE
from support.s3 import ObjectStore
from support.servers import free_port

ROOT = Path(__file__).parents[2]
RAYMAKER = Path(sys.executable).with_name("raymaker")
RAY_PORTS_COUNT = 4
"""`raymaker up` gives Ray the port of the settings and the three after it."""


@dataclass(frozen=True)
class Platform:
    """A running platform: where it answers, where its state lies, and the variables that lead clients to it."""

    url: str
    home: Path
    environment: Mapping[str, str]

    def cli(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `raymaker ARGUMENTS` against this platform and return what it printed, whatever its exit code."""
        return self.run([str(RAYMAKER), *arguments], timeout_s=timeout_s)

    def run(self, command: list[str], timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run any program with the variables that lead to this platform."""
        return subprocess.run(
            command, env=self.environment, cwd=self.home, capture_output=True, text=True, check=False, timeout=timeout_s
        )

    def client(self, service: str) -> Any:
        """A new boto3 client of `sagemaker`, `sagemaker-runtime`, `logs` or `sts`; whoever asked for it closes it."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": 1}),
        )


@contextlib.contextmanager
def running_platform(**settings: object) -> Iterator[Platform]:
    """Run `raymaker up` with these settings over a fresh home and free ports; take everything down after the block."""
    home = Path(tempfile.mkdtemp(prefix="raymaker-"))  # short: Ray's sockets live below it
    environment = platform_environment(home, **settings)
    platform = Platform(f"http://127.0.0.1:{environment['RAYMAKER_PORT']}", home, environment)
    try:
        _must_succeed(platform.cli("up"))
        yield platform
    finally:
        try:
            _must_succeed(platform.cli("down"))
        finally:
            shutil.rmtree(home)


def platform_environment(home: Path, **settings: object) -> dict[str, str]:
    """The variables of a platform that meets no other one: this process's own without its RAYMAKER_*, and these."""
    ray_port = _free_ports(RAY_PORTS_COUNT)
    ports = {name: free_port() for name in ("port", "haproxy_stats_port", "haproxy_metrics_port")}
    chosen = {"home": home, "ray_port": ray_port, **ports, "base_image": BASE_IMAGE, "cpus": 8, **settings}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAYMAKER_", "RAY_"))}
    kept["PATH"] = f"{RAYMAKER.parent}:{kept['PATH']}"
    return kept | {f"RAYMAKER_{name.upper()}": str(value) for name, value in chosen.items()}


@pytest.fixture(scope="session")
def platform(engine: docker.DockerClient, base_image: str, s3: ObjectStore, registry: str) -> Iterator[Platform]:
    """One platform for the whole session, on the docker driver, with the session's object store and registry.

    At the end it must have left no container behind.
    """
    with running_platform(
        driver="docker",
        stop_grace_s=5,
        s3_endpoint_url=s3.endpoint_url,
        s3_access_key_id=s3.access_key,
        s3_secret_access_key=s3.secret_key,
        registry_insecure=f'["{registry}"]',
    ) as running:
        yield running
    assert engine.containers.list(all=True, filters={"label": f"raymaker.home={running.home}"}) == []


def _must_succeed(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise RuntimeError(f"{done.args} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row that nothing listens on at this moment."""
    while True:
        first = free_port()
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
