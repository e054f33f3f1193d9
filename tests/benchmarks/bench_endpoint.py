"""From CreateEndpoint to the first answer, beside a plain Ray Serve application that does nothing, in the same Serve.

The container is noop_server.c, whose own start takes next to no time. Both take turns, and are gone before the next.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker

from raymaker.platform.client.connection import Connection
from raymaker.platform.cluster import head
from support.jobs import ROLE
from support.measure import print_times
from support.noop_hosting import noop_image
from support.platform import Platform, running_platform

ROUNDS = 9
OURS, PLAIN = "CreateEndpoint, one container", "plain Serve application"
NAME = "bench-created"
MOST = 1.2
PATIENCE_S = 120.0
CALM_S = 3.0
LOOK_S = 0.01

APPLICATION = f"""
import sys
import ray
from ray import serve

ray.init(address=sys.argv[1], namespace="bench", logging_level="ERROR", log_to_driver=False)

@serve.deployment(ray_actor_options={{"num_cpus": 0}})
class Noop:
    async def __call__(self, request) -> bytes:
        return b"x"

print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "deploy":
        target = serve.RunTarget(Noop.bind(), name="{NAME}", route_prefix="/{NAME}")
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    else:
        serve.delete("{NAME}")
    print("done", flush=True)
"""


def main() -> None:
    """Let both take turns."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(contextlib.closing(docker.from_env()))
        image = stack.enter_context(noop_image(engine, Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        here = stack.enter_context(running_platform(driver="docker"))
        sagemaker = stack.enter_context(contextlib.closing(Connection(here.url))).client("sagemaker")
        sagemaker.create_model(ModelName=NAME, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image})
        variant = {"VariantName": "main", "ModelName": NAME, "InitialInstanceCount": 1, "InstanceType": "local"}
        sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
        tell = stack.enter_context(plain_serve(here))
        taken: dict[str, list[float]] = {PLAIN: [], OURS: []}
        for number in range(ROUNDS + 1):  # the first warms up
            plain = timed(lambda: tell("deploy"), here.url, "GET", f"/{NAME}")
            tell("delete")
            time.sleep(CALM_S)
            ours = timed(lambda: create(sagemaker), here.url, "POST", f"/endpoints/{NAME}/invocations")
            delete(sagemaker)
            time.sleep(CALM_S)
            if number:
                taken[OURS].append(ours)
                taken[PLAIN].append(plain)
        print_times(f"from nothing to the first answer, {ROUNDS} rounds", taken, OURS, MOST)


@contextlib.contextmanager
def plain_serve(here: Platform) -> Iterator[Callable[[str], None]]:
    """A driver that deploys and deletes the plain application, each when it is told to."""
    environment = {**here.environment, **head.ray_environment(here.settings)}
    command = [sys.executable, "-c", APPLICATION, f"127.0.0.1:{here.settings.ray_port}"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        answers = driver.stdout

        def tell(what: str) -> None:
            print(what, file=driver.stdin, flush=True)
            await_line()

        def await_line() -> None:
            if not answers.readline():
                raise RuntimeError("the driver of the plain application has ended")

        await_line()
        yield tell
        driver.stdin.close()


def create(sagemaker: Any) -> None:
    """Have the endpoint made."""
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)


def delete(sagemaker: Any) -> None:
    """Have the endpoint taken away, and wait until it is gone."""
    sagemaker.delete_endpoint(EndpointName=NAME)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 120})


def timed(begin: Callable[[], None], url: str, method: str, path: str) -> float:
    """Seconds from the beginning to the first answer of that path."""
    began = time.perf_counter()
    begin()
    while not answers(url, method, path):
        if time.perf_counter() - began > PATIENCE_S:
            raise RuntimeError(f"{path} did not answer within {PATIENCE_S:.0f} s")
        time.sleep(LOOK_S)
    return time.perf_counter() - began


def answers(url: str, method: str, path: str) -> bool:
    """Ask once."""
    body = b"x" if method == "POST" else None
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)) as connection:
        connection.request(method, path, body, {"Content-Type": "text/csv"})
        return connection.getresponse().status == http.HTTPStatus.OK


if __name__ == "__main__":
    main()
