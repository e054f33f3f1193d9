"""From zero to the first answer: a request to an endpoint that rests or sleeps, beside `docker run` of its container.

One that rests has a process and no container, one that sleeps has neither. And what endpoints that sleep take of memory
and of the platform's time, a thousand of them. The container is noop_server.c, whose own start takes next to no time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import docker

from raymaker.platform.client.connection import Connection
from raymaker.platform.database import hosting
from raymaker.platform.database.engine import Database
from raymaker.platform.records import SleepStage
from support.jobs import ROLE
from support.measure import MIB, memory_of_home, print_times
from support.noop_hosting import noop_image
from support.platform import Platform, running_platform

ROUNDS = 9
RAN, RESTED, SLEPT = "docker run until /ping", "first answer of one that rested", "first answer of one that slept"
CALM_S = 2.0
"""After the endpoints have gone to rest and to sleep, until the platforms are at rest too."""
MANY = 1000
NAME = "bench-sleeper"
MOST = 1.5
PATIENCE_S = 120.0


def main() -> None:
    """Let both take turns, then count a thousand."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(contextlib.closing(docker.from_env()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = stack.enter_context(noop_image(engine, folder))
        rested = stack.enter_context(running_platform(driver="docker"))
        here = stack.enter_context(running_platform(driver="docker", resting_endpoints=0))
        for each in (rested, here):
            create_sleeper(each, image)
            until(lambda it=each: answers(it), f"{NAME} answers")  # type: ignore[misc]
        taken: dict[str, list[float]] = {RAN: [], RESTED: [], SLEPT: []}
        for _ in range(ROUNDS):
            until(lambda: stage(here) is SleepStage.ASLEEP, f"{NAME} sleeps")
            until(lambda: not containers(engine), f"{NAME} rests")
            time.sleep(CALM_S)
            taken[RESTED].append(timed(lambda: invoke(rested.url)))
            taken[SLEPT].append(timed(lambda: invoke(here.url)))
            taken[RAN].append(timed(lambda: run_container(engine, image)))
        print_times(f"from zero, {ROUNDS} rounds", taken, RESTED, MOST)
        until(lambda: stage(here) is SleepStage.ASLEEP, f"{NAME} sleeps")
        report_many(here)


def create_sleeper(here: Platform, image: str) -> None:
    """Create an endpoint that goes to sleep as soon as it may."""
    with contextlib.closing(Connection(here.url)) as connection:
        sagemaker = connection.client("sagemaker")
        sagemaker.create_model(ModelName=NAME, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image})
        serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 1, "IdleTimeInSeconds": 1}
        variant = {"VariantName": "main", "ModelName": NAME, "ServerlessConfig": serverless}
        sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)


def stage(here: Platform) -> SleepStage | None:
    """How deep the endpoint sleeps."""
    database = Database(here.settings.resolved_database_url)
    try:
        with database.reading() as connection:
            record = hosting.find_endpoint(connection, NAME)
        return record.sleep if record is not None else None
    finally:
        database.dispose()


def invoke(url: str) -> None:
    """Ask the endpoint once."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)) as connection:
        connection.request("POST", f"/endpoints/{NAME}/invocations", b"x", {"Content-Type": "text/csv"})
        response = connection.getresponse()
        said = response.read()
    if response.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{NAME} answered {response.status}: {said!r}")


def run_container(engine: docker.DockerClient, image: str) -> None:
    """Start the container by hand, as the platform would, until it answers its health check."""
    container = engine.containers.run(image, ["serve"], detach=True)
    try:
        container.reload()
        (network,) = container.attrs["NetworkSettings"]["Networks"].values()
        until(lambda: answers_ping(network["IPAddress"]), "the container answers")
    finally:
        container.remove(force=True)


def answers(here: Platform) -> bool:
    """Ask the endpoint whether it is there."""
    try:
        invoke(here.url)
    except RuntimeError:
        return False
    return True


def containers(engine: docker.DockerClient) -> list[object]:
    """The endpoint's containers, of any platform."""
    return list(engine.containers.list(filters={"name": f"-scoring-{NAME}-"}, ignore_removed=True))


def answers_ping(address: str) -> bool:
    """Ask a container whether it is well."""
    try:
        with contextlib.closing(http.client.HTTPConnection(address, 8080, timeout=1)) as connection:
            connection.request("GET", "/ping")
            return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False


def timed(work: Callable[[], None]) -> float:
    """How long work takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"did not happen within {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.01)


def report_many(here: Platform) -> None:
    """Put many sleeping endpoints beside the one, and print what they take."""
    before = sum(memory_of_home(here.home).values())
    database = Database(here.settings.resolved_database_url)
    with database.transaction() as connection:
        record = hosting.find_endpoint(connection, NAME)
        assert record is not None
        for number in range(MANY):
            name = f"{NAME}-{number}"
            copy = dataclasses.replace(record, name=name, arn=record.arn.replace(NAME, name))
            assert hosting.insert_endpoint(connection, copy)
    database.dispose()
    listed = timed(lambda: print(f"\n{len(here.cli('endpoints', '--json').stdout)} bytes told of {MANY} endpoints"))
    after = sum(memory_of_home(here.home).values())
    print(
        f"memory of one more endpoint that sleeps: {max(0, after - before) / MANY / MIB:.3f} MiB (PSS of the platform)"
    )
    print(f"`raymaker endpoints` with {MANY} of them: {listed:.1f} s")


if __name__ == "__main__":
    main()
