"""An inference graph of three containers in sequence: on one machine beside three calls of the container itself, and
apart beside a plain Ray Serve composition of three deployments that do nothing.

The containers are noop_server.c; wrk is the client of all, and all take turns.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import docker

from raymaker.platform.client.connection import Connection
from support.measure import print_table
from support.noop_hosting import ROW, Sample, Wrk, container_address, create_endpoint, deploy_beside, noop_image
from support.platform import Platform, running_platform

ROUNDS = 7
STRAIGHT, HOP = "straight to a container", "InvokeEndpoint, one container"
COLOCATED, DISTRIBUTED, PLAIN = "graph of three, colocated", "graph of three, distributed", "plain Serve composition"
NAMES = {HOP: "bench-hop", COLOCATED: "bench-colocated", DISTRIBUTED: "bench-distributed"}
CONTAINERS = ("one", "two", "three")
MOST_COLOCATED, MOST_DISTRIBUTED = 1.5, 1.2

COMPOSITION = """
import sys
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response

ray.init(address=sys.argv[1], namespace="bench")
options = dict(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)

@serve.deployment(**options)
class Noop:
    async def __call__(self, body: bytes) -> bytes:
        return b'{"score":1}'

@serve.deployment(**options)
class Chain:
    def __init__(self, *steps: DeploymentHandle) -> None:
        self._steps = steps

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        for step in self._steps:
            body = await step.remote(body)
        return Response(body, media_type="application/json")

steps = [Noop.options(name=f"step-{number}").bind() for number in range(3)]
serve.run(Chain.bind(*steps), name="bench-composition", route_prefix="/bench-composition")
"""


def main() -> None:
    """Bring all up on one platform, and measure with one client."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(contextlib.closing(docker.from_env()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = stack.enter_context(noop_image(engine, folder))
        here = stack.enter_context(running_platform(driver="docker", cpus=16))
        bring_up(here, image)
        ways = {STRAIGHT: f"http://{container_address(engine, NAMES[HOP])}/invocations"}
        ways |= {way: f"{here.url}/endpoints/{name}/invocations" for way, name in NAMES.items()}
        ways[PLAIN] = f"{here.url}/bench-composition"
        report(Wrk.sending(ROW, folder).measure(ways, 1, ROUNDS))


def bring_up(here: Platform, image: str) -> None:
    """Create the endpoints, and the composition beside them in the same Serve."""
    containers = [{"ContainerHostname": name, "Image": image} for name in CONTAINERS]
    steps = [{"ContainerHostname": name, "Data": "$response"} for name in CONTAINERS]
    nodes = {"root": {"RouterType": "Sequence", "Steps": steps}}
    with contextlib.closing(Connection(here.url)) as connection:
        create_endpoint(connection, NAMES[HOP], {"PrimaryContainer": {"Image": image}})
        for way, placement in {COLOCATED: "Colocated", DISTRIBUTED: "Distributed"}.items():
            graph = {"Nodes": nodes, "Placement": placement}
            create_endpoint(connection, NAMES[way], {"Containers": containers, "InferenceGraph": graph})
    deploy_beside(here, COMPOSITION)


def report(middle: dict[str, Sample]) -> None:
    """Print medians, and the two ratios."""
    rows = [
        [way, f"{seen.p50_us:.0f} us", f"{seen.p99_us:.0f} us", f"{seen.per_s:.0f}/s"] for way, seen in middle.items()
    ]
    print_table(f"1 client, median of {ROUNDS} rounds", ["", "p50", "p99", "rate"], rows)
    floor_us = len(CONTAINERS) * middle[STRAIGHT].p50_us + middle[HOP].p50_us
    for way, base_us, beside, most in (
        (COLOCATED, floor_us, "three direct calls and one InvokeEndpoint", MOST_COLOCATED),
        (DISTRIBUTED, middle[PLAIN].p50_us, "the plain composition", MOST_DISTRIBUTED),
    ):
        ratio = middle[way].p50_us / base_us
        verdict = "reached" if ratio <= most else "MISSED"
        print(f"{way}: p50 {ratio:.2f} times that of {beside}; at most {most:g}: {verdict}")


if __name__ == "__main__":
    main()
