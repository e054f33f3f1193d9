"""InvokeEndpoint beside nginx in front of the same container, and beside the container itself.

The container is noop_server.c, which answers faster than anything that could stand before it. wrk is the client of all
three, on connections that are kept; the three take turns, and ratios are of the medians over all rounds.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker

from support.measure import median, print_table
from support.platform import Platform, running_platform
from support.servers import find_program, free_port, running_server

ROUNDS = 7
ROUND_S = 2
CLIENT_COUNTS = (1, 32)
IMAGE = "raymaker-bench-noop:latest"
ENDPOINT = "bench-invoke"
TARGET = 6.0
"""Times nginx's p50 with one client that InvokeEndpoint may take."""

NGINX = """\
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
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
wrk.body = "5.1,3.5,1.4,0.2"
wrk.headers["Content-Type"] = "text/csv"
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\\n{"p50_us": %d, "p99_us": %d, "count": %d, "duration_us": %d, "errors": %d}\\n',
    latency:percentile(50), latency:percentile(99), summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Sample:
    """One round of one way: two latencies and a rate."""

    p50_us: float
    p99_us: float
    per_s: float


def main() -> None:
    """Measure the three ways in turns and print a table for each number of clients."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(contextlib.closing(docker.from_env()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(engine.images.remove, make_image(engine, folder), force=True)
        here = stack.enter_context(running_platform(driver="docker"))
        create_endpoint(here)
        address = f"{container_address(engine)}:8080"
        ways = {
            "straight to the container": f"http://{address}/invocations",
            "nginx": f"http://127.0.0.1:{stack.enter_context(running_nginx(folder, address))}/invocations",
            "InvokeEndpoint": f"{here.url}/endpoints/{ENDPOINT}/invocations",
        }
        script = folder / "post.lua"
        script.write_text(WRK)
        for count in CLIENT_COUNTS:
            report(count, measure(ways, count, script))


def measure(ways: dict[str, str], client_count: int, script: Path) -> dict[str, list[Sample]]:
    """Take a sample of each way in every round. The first round warms up and is not kept."""
    samples: dict[str, list[Sample]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, url in ways.items():
            sample = run_wrk(url, client_count, script)
            if number:
                samples[way].append(sample)
    return samples


def run_wrk(url: str, client_count: int, script: Path) -> Sample:
    """Ask as fast as answers come, for one round."""
    wrk = find_program("wrk", package="wrk")
    command = [wrk, "-t1", f"-c{client_count}", f"-d{ROUND_S}s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    if seen["errors"] or not seen["count"]:
        raise RuntimeError(f"{url}: {seen['errors']} of {seen['count']} requests failed")
    return Sample(seen["p50_us"], seen["p99_us"], seen["count"] / seen["duration_us"] * 1e6)


def report(client_count: int, samples: dict[str, list[Sample]]) -> None:
    """Print medians over the rounds, each with its ratio to nginx's."""
    rows = []
    middle = {way: middle_of(taken) for way, taken in samples.items()}
    for way, (p50_us, p99_us, per_s) in middle.items():
        nginx = middle["nginx"]
        rows.append(
            [
                way,
                f"{p50_us:.0f} us",
                f"{p50_us / nginx[0]:.2f}",
                f"{p99_us:.0f} us",
                f"{p99_us / nginx[1]:.2f}",
                f"{per_s:.0f}/s",
                f"{per_s / nginx[2]:.3f}",
            ]
        )
    title = f"{client_count} client{'s' * (client_count > 1)}, median of {ROUNDS} rounds of {ROUND_S} s"
    print_table(title, ["", "p50", "of nginx", "p99", "of nginx", "rate", "of nginx"], rows)
    if client_count == 1:
        ratio = middle["InvokeEndpoint"][0] / middle["nginx"][0]
        print(f"p50 with one client: {ratio:.2f} times nginx's; the target is at most {TARGET:g}")


def middle_of(samples: list[Sample]) -> tuple[float, float, float]:
    """The median of each of a sample's numbers."""
    return (
        median([sample.p50_us for sample in samples]),
        median([sample.p99_us for sample in samples]),
        median([sample.per_s for sample in samples]),
    )


def make_image(engine: docker.DockerClient, folder: Path) -> str:
    """Compile the noop server and make an image of nothing else."""
    program = folder / "serve"
    source = Path(__file__).with_name("noop_server.c")
    gcc = find_program("gcc", package="gcc libc6-dev")
    subprocess.run([gcc, "-O2", "-static", "-o", str(program), str(source)], check=True)
    packed = io.BytesIO()
    with tarfile.open(mode="w", fileobj=packed) as archive:
        archive.add(program, "usr/bin/serve")
    engine.api.import_image_from_data(packed.getvalue(), *IMAGE.split(":"), changes=["ENV PATH=/usr/bin"])
    return IMAGE


def create_endpoint(platform: Platform) -> None:
    """Bring up one replica of the noop image through the API."""
    sagemaker = platform.client("sagemaker")
    with contextlib.closing(sagemaker):
        role = "arn:aws:iam::000000000000:role/bench"
        sagemaker.create_model(ModelName=ENDPOINT, ExecutionRoleArn=role, PrimaryContainer={"Image": IMAGE})
        variant = {"VariantName": "main", "ModelName": ENDPOINT, "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(
            EndpointConfigName=ENDPOINT, ProductionVariants=[{**variant, "InstanceType": "ml.t2.medium"}]
        )
        sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
        waiter = sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=ENDPOINT, WaiterConfig={"Delay": 1, "MaxAttempts": 120})


def container_address(engine: docker.DockerClient) -> str:
    """Where the endpoint's only container answers."""
    (container,) = engine.containers.list(filters={"label": f"raymaker.endpoint={ENDPOINT}"})
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


@contextlib.contextmanager
def running_nginx(folder: Path, address: str) -> Iterator[int]:
    """Run nginx with one worker before the container, as a rival would be set up; yield its port."""
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, address=address, port=port))
    nginx = find_program("nginx", "/usr/sbin", package="nginx-light")
    with running_server([nginx, "-c", str(configuration), "-p", str(folder)], port, folder / "nginx.log"):
        yield port


if __name__ == "__main__":
    main()
