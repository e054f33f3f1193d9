"""What benchmarks of hosting share: a container that answers at once, its endpoints, wrk as their client, and nginx."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from raymaker.platform.client.connection import Connection
from raymaker.platform.cluster import head
from support.engine import BASE_IMAGE
from support.hosting import address_of
from support.jobs import ROLE
from support.measure import median
from support.platform import ROOT, Platform
from support.servers import find_program, free_port, running_server

IMAGE = "raymaker-bench-noop:latest"
LARGEST_BODY_BYTES = 6 * 1024 * 1024
"""What InvokeEndpoint takes at most."""

NGINX = """\
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 8m; client_body_buffer_size 8m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream model {{ server {address}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000000;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""

WRK = """\
wrk.method = "POST"
wrk.body = %s
wrk.headers["Content-Type"] = "text/csv"
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\\n{"p50_us": %%d, "p99_us": %%d, "count": %%d, "duration_us": %%d, "errors": %%d}\\n',
    latency:percentile(50), latency:percentile(99), summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
ROW = '"5.1,3.5,1.4,0.2"'
LARGEST = f'string.rep("x", {LARGEST_BODY_BYTES})'


@dataclass(frozen=True)
class Sample:
    """One round of one way: two latencies and a rate."""

    p50_us: float
    p99_us: float
    per_s: float


@dataclass(frozen=True)
class Wrk:
    """wrk, which sends one body over and over, as fast as answers come, on connections that are kept."""

    script: Path
    round_s: int = 2

    @classmethod
    def sending(cls, body: str, folder: Path) -> Wrk:
        """With a body, as Lua has it."""
        script = folder / f"post-{len(list(folder.glob('post-*.lua')))}.lua"
        script.write_text(WRK % body)
        return cls(script)

    def run(self, url: str, client_count: int) -> Sample:
        """Ask for one round. Raises RuntimeError where a request fails."""
        wrk = find_program("wrk", package="wrk")
        command = [wrk, "-t1", f"-c{client_count}", f"-d{self.round_s}s", "-s", str(self.script), url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seen = json.loads(done.stdout.splitlines()[-1])
        if seen["errors"] or not seen["count"]:
            raise RuntimeError(f"{url}: {seen['errors']} of {seen['count']} requests failed")
        return Sample(seen["p50_us"], seen["p99_us"], seen["count"] / seen["duration_us"] * 1e6)

    def measure(self, ways: dict[str, str], client_count: int, rounds: int) -> dict[str, Sample]:
        """Let all ways take turns; the medians over the rounds. A round before the first warms up and is not kept."""
        samples: dict[str, list[Sample]] = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, url in ways.items():
                sample = self.run(url, client_count)
                if number:
                    samples[way].append(sample)
        return {way: middle_of(taken) for way, taken in samples.items()}


def middle_of(samples: Sequence[Sample]) -> Sample:
    """The median of each of a sample's numbers."""
    return Sample(
        median([sample.p50_us for sample in samples]),
        median([sample.p99_us for sample in samples]),
        median([sample.per_s for sample in samples]),
    )


@contextlib.contextmanager
def noop_image(engine: docker.DockerClient, folder: Path) -> Iterator[str]:
    """Compile the noop server, and make an image of it, which is removed after the block."""
    context = folder / "noop"
    context.mkdir()
    program = context / "serve"
    source = ROOT / "tests" / "benchmarks" / "noop_server.c"
    gcc = find_program("gcc", package="gcc libc6-dev")
    subprocess.run([gcc, "-O2", "-static", "-o", str(program), str(source)], check=True)
    (context / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nCOPY serve /usr/bin/\n")
    engine.images.build(path=str(context), tag=IMAGE, rm=True)
    try:
        yield IMAGE
    finally:
        engine.images.remove(IMAGE, force=True)


def create_endpoint(connection: Connection, name: str, model: dict[str, Any], **config: Any) -> None:
    """Bring up an endpoint of one variant with one instance, of a model that is made for it."""
    sagemaker = connection.client("sagemaker")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, **model)
    variant = {"VariantName": "main", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.t2.medium"}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **config)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    waiter = sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})


def container_address(engine: docker.DockerClient, endpoint: str) -> str:
    """Where an endpoint's only container answers."""
    (container,) = engine.containers.list(filters={"name": f"-scoring-{endpoint}-"})
    return address_of(container)


def deploy_beside(platform: Platform, driver: str) -> None:
    """Run a script that deploys something of its own in a platform's Serve. Its argument is the cluster's address."""
    environment = head.ray_environment(platform.settings)
    address = f"127.0.0.1:{platform.settings.ray_port}"
    done = platform.run([sys.executable, "-c", driver, address], environment=environment)
    if done.returncode:
        raise RuntimeError(f"what is to be beside the platform did not come up:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def running_nginx(folder: Path, address: str) -> Iterator[int]:
    """Run nginx with one worker before the container, as a rival would be set up; yield its port."""
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, address=address, port=port))
    nginx = find_program("nginx", "/usr/sbin", package="nginx-light")
    with running_server([nginx, "-c", str(configuration), "-p", str(folder)], port, folder / "nginx.log"):
        yield port
