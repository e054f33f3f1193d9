"""A Ray cluster with Serve as the platform starts it, for tests, and a process connected to it."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import ray
from botocore.config import Config
from integration.serving.file_reporter import FileReporter
from integration.serving.sqlite_queue import SqliteQueue

from raymaker.actors.site import Site
from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving import endpoint
from raymaker.serving.endpoint import EndpointObservation, EndpointState
from raymaker.serving.spec import EndpointSpec, VariantSpec
from support.servers import free_port


@dataclass(frozen=True)
class ServeCluster:
    """A Ray cluster of this session's own with Serve on it, and what endpoints need to be deployed there."""

    pid: int
    port: int
    driver: ProcessPoolExecutor
    site: Site
    reporter: FileReporter
    image: str

    @property
    def queue(self) -> SqliteQueue:
        """The queue of asynchronous invocations."""
        return SqliteQueue(self.site.home / "queue.sqlite3")

    def spec(self, name: str, generation: int = 1, replica_count: int = 1, **scoring: Any) -> EndpointSpec:
        """An endpoint of the test image on a small machine; `environment` decides how the container behaves."""
        return EndpointSpec(
            endpoint_name=name,
            config_name=f"{name}-config-{generation}",
            generation=generation,
            variants=(self.variant("main", replica_count, **scoring),),
            revision=generation,
            endpoint_arn=f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{name}",
        )

    def variant(self, name: str, replica_count: int = 1, **scoring: Any) -> VariantSpec:
        """A variant of the test image on a small machine."""
        wanted = {"image": self.image, "startup_timeout_s": 60, "invocation_timeout_s": 10, **scoring}
        return VariantSpec(name, replica_count, InstanceType("local", Resources(cpus=0.5)), ScoringSpec(**wanted))

    def deploy(self, spec: EndpointSpec, *beside: EndpointSpec) -> None:
        """Begin a rollout."""
        self.driver.submit(endpoint.deploy, spec, self.site, self.reporter, self.queue, beside).result()

    def observe(self, name: str) -> EndpointObservation:
        """Look once."""
        return self.driver.submit(endpoint.observe, [name]).result()[name]

    def delete(self, name: str) -> None:
        """Begin to take it away."""
        self.driver.submit(endpoint.delete, name).result()

    def wait_for(self, name: str, *states: EndpointState, timeout_s: float = 120) -> EndpointObservation:
        """Wait until the endpoint is in one of these states; one that answers is waited for at the proxy too."""
        deadline = time.monotonic() + timeout_s
        while (seen := self.observe(name)).state not in states or not self._is_known(name, seen):
            assert time.monotonic() < deadline, f"{name} is still {seen}, after {self.reporter.failures(name)}"
            time.sleep(0.1)
        return seen

    def _is_known(self, name: str, seen: EndpointObservation) -> bool:
        """Tell whether HAProxy has heard of a healthy endpoint: that may take a moment longer than it takes Serve."""
        if seen.state is not EndpointState.HEALTHY:
            return True
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", f"/endpoints/{name}/invocations")  # which its front refuses
            return connection.getresponse().status != http.HTTPStatus.SERVICE_UNAVAILABLE

    def labels(self, endpoint: str, *more: str) -> list[str]:
        """What the containers of an endpoint of this cluster carry: others may have one of the same name."""
        return [f"raymaker.endpoint={endpoint}", f"raymaker.home={self.site.home}", *more]

    def client(self, max_attempts: int = 0, **options: Any) -> Any:
        """A stock boto3 client of the runtime. `max_attempts` counts how often it asks again."""
        return boto3.client(
            "sagemaker-runtime",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="thing",
            config=Config(retries={"max_attempts": max_attempts, "mode": "standard"}, read_timeout=70, **options),
        )


@contextlib.contextmanager
def driver_of(address: str) -> Iterator[ProcessPoolExecutor]:
    """A process that is connected to the cluster: a fresh one, since Ray reads its variables when it is imported."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=connect, initargs=(address,)) as driver:
        yield driver


def connect(address: str) -> None:
    """What the driver process does first."""
    ray.init(address=address, namespace="raymaker", log_to_driver=False)


@contextlib.contextmanager
def running_ray(home: Path) -> Iterator[tuple[int, str]]:
    """A Ray head that ends with this block, all of its processes included."""
    ports = [free_port() for _ in range(4)]
    names = ("--port", "--dashboard-port", "--dashboard-agent-listen-port", "--ray-client-server-port")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"{name}={number}" for name, number in zip(names, ports, strict=True)]
    command += [f"--temp-dir={home / 'ray'}", "--node-ip-address=127.0.0.1", "--num-cpus=8"]
    log = home / "ray.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + 60
    while b"Ray runtime started" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    try:
        yield process.pid, f"127.0.0.1:{ports[0]}"
    finally:
        members = process_tree(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in members) and time.monotonic() < deadline:
            time.sleep(0.05)  # what still ends may still write


def process_tree(root: int) -> list[int]:
    """A process and everything that descends from it or shares its session."""
    found: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found[int(entry.name)] = (int(fields[1]), int(fields[3]))
    members = {pid for pid, (_, session) in found.items() if root in {session, pid}}
    while grown := {pid for pid, (parent, _) in found.items() if parent in members} - members:
        members |= grown
    return sorted(members)


def listening_addresses(pids: list[int]) -> set[tuple[str, int]]:
    """The TCP addresses that these processes listen on, as the kernel shows them."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # LISTEN
                host, _, port = fields[1].partition(":")
                words = struct.unpack(f">{len(host) // 8}I", bytes.fromhex(host))
                packed = struct.pack(f"<{len(words)}I", *words)
                address = ipaddress.ip_address(packed)
                mapped = getattr(address, "ipv4_mapped", None)
                found.add((str(mapped or address), int(port, 16)))
    return found
