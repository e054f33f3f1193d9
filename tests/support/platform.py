"""A whole platform of its own, on spare ports and in a home of its own, run through the command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
import docker
import pytest
from botocore.config import Config
from ray.util import get_node_ip_address

from raymaker.platform.cluster import head
from raymaker.platform.settings import Settings
from support.engine import BASE_IMAGE
from support.namespaces import WiredMachine
from support.s3 import ObjectStore
from support.servers import free_port

ROOT = Path(__file__).parents[2]
RAYMAKER = Path(sys.executable).with_name("raymaker")
SERVES_OWN = 500
"""How far above a platform's port that of Serve's own proxy lies."""
RAY_PORTS_COUNT = 4
"""`raymaker up` gives Ray the port of the settings and the three after it."""
ORPHANS_TIMEOUT_S = 30.0


class Node:
    """A Ray node beside the head: one more machine to the platform, though its processes run on this one."""

    def __init__(self, platform: Platform, cpus: int) -> None:
        settings = platform.settings
        command = [*(platform.machines[1].inside if platform.machines else ())]
        command += [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += [f"--address={platform.ray_address}", f"--num-cpus={cpus}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
        with (platform.home / "logs" / "nodes.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**platform.environment, **head.ray_environment(settings)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._began = head.process_started(self._process.pid)

    @property
    def pid(self) -> int:
        """The process whose session and descendants the node is."""
        return self._process.pid

    def kill(self) -> None:
        """`kill -9` the node's raylet; what ran on the node goes with it, but for containers."""
        members = head.session_members(self.pid)
        raylets = [pid for pid, _ in members if b"raylet/raylet" in Path(f"/proc/{pid}/cmdline").read_bytes()[:300]]
        assert len(raylets) == 1, f"the node has {len(raylets)} raylets"
        os.kill(raylets[0], signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        while left := [pid for pid, began in members if head.process_started(pid) == began]:
            assert time.monotonic() < deadline, f"processes of a dead node live on: {left}"
            time.sleep(0.1)

    def stop(self) -> None:
        """End the node, where it lives."""
        if self._process.poll() is None:
            head.stop_head(head.HeadState("", "", self.pid, self._began, None))
        self._process.wait()


@dataclass(frozen=True)
class Platform:
    """A running platform: where it answers, where its state lies, and the variables that lead clients to it."""

    url: str
    home: Path
    environment: Mapping[str, str]
    nodes: list[Node] = field(default_factory=list)
    """The nodes beside the head that were started and not taken away."""
    machines: tuple[WiredMachine, ...] = ()
    """Where the head, and where the other nodes are, if not in this machine's own network."""

    @property
    def ray_address(self) -> str:
        """Where nodes find the head."""
        address = self.machines[0].address if self.machines else get_node_ip_address()
        return f"{address}:{self.settings.ray_port}"

    @property
    def settings(self) -> Settings:
        """The platform's settings, as far as its Ray nodes depend on them."""
        names = ("home", "host", "port", "haproxy_stats_port", "haproxy_metrics_port", "ray_port")
        told = {name: self.environment.get(f"RAYMAKER_{name.upper()}") for name in names}
        return Settings(**{name: value for name, value in told.items() if value is not None})  # type: ignore[arg-type]

    def add_node(self, cpus: int) -> Node:
        """Have one more node join the platform's cluster, and return while it does."""
        self.nodes.append(Node(self, cpus))
        return self.nodes[-1]

    def remove_node(self, node: Node) -> None:
        """`kill -9` a node's raylet."""
        self.nodes.remove(node)
        node.kill()

    def node_count(self) -> int:
        """How many nodes the cluster has by its own word, the head among them."""
        return int(json.loads(self.cli("status", "--json").stdout)["nodes"])

    def nodes_log(self) -> str:
        """The end of what the nodes beside the head have said."""
        return (self.home / "logs" / "nodes.log").read_text(errors="replace")[-3000:]

    def cli(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `raymaker ARGUMENTS` against this platform and return what it printed, whatever its exit code."""
        return self.run([str(RAYMAKER), *arguments], timeout_s=timeout_s)

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Ray's own command line against this platform's cluster."""
        subcommand, *rest = arguments
        command = [sys.executable, "-m", "ray.scripts.scripts", subcommand, f"--address={self.ray_address}", *rest]
        return self.run(command, environment=head.ray_environment(self.settings))

    def run(
        self, command: list[str], timeout_s: float = 300, environment: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[str]:
        """Run any program with the variables that lead to this platform, and more, on the machine where its head is."""
        return subprocess.run(
            [*(self.machines[0].inside if self.machines else ()), *command],
            env={**self.environment, **environment},
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
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
def running_platform(
    nodes: int = 1,
    machines: tuple[WiredMachine, ...] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
    **settings: object,
) -> Iterator[Platform]:
    """Run `raymaker up` with these settings over a fresh home and free ports; take everything down after the block.

    `variables` are the environment's, beside the settings. More than one of `nodes` have as many CPUs as the setting
    gives the head, and are not waited for. `machines` are as for `Platform`.
    """
    if nodes > 1:
        settings = {"host": "0.0.0.0", **settings}  # on loopback Ray takes no other nodes
    home = Path(tempfile.mkdtemp(prefix="raymaker-"))  # short: Ray's sockets live below it
    environment = {**platform_environment(home, **settings), **variables}
    platform = Platform(f"http://127.0.0.1:{environment['RAYMAKER_PORT']}", home, environment, machines=machines)
    try:
        _must_succeed(platform.cli("up"))
        for _ in range(nodes - 1):
            platform.add_node(int(environment["RAYMAKER_CPUS"]))
        yield platform
    finally:
        for node in platform.nodes:
            node.stop()
        try:
            _must_succeed(platform.cli("down"))
        finally:
            shutil.rmtree(home)


def platform_environment(home: Path, **settings: object) -> dict[str, str]:
    """The variables of a platform that meets no other one: this process's own without its RAYMAKER_*, and these."""
    ray_port = free_port(*range(1, RAY_PORTS_COUNT))
    ports = {
        "port": free_port(SERVES_OWN),
        **{name: free_port() for name in ("haproxy_stats_port", "haproxy_metrics_port")},
    }
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
