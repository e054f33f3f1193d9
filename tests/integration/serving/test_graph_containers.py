"""The table of graphs over HTTP to real containers, and a container that dies at work."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping

import docker
import pytest
from docker.models.containers import Container

from raymaker.serving.errors import NothingSent
from raymaker.serving.forward import ContainerAnswer, Forwarder
from raymaker.serving.graph.document import parse_graph
from raymaker.serving.graph.run import GraphAnswer, GraphRunner, StepCall
from support import graph_stub
from support.faults import eventually
from support.graph_cases import CASES, CONTAINERS, HANG, Case, node, say, step
from support.graphs import assert_answers, drawing

PORT = 8080
Addresses = Mapping[str, str]


@contextlib.contextmanager
def running_stub(engine: docker.DockerClient, image: str, name: str) -> Iterator[tuple[Container, str]]:
    """Start a stub, and give it and its address once it answers."""
    volumes = {graph_stub.__file__: {"bind": "/stub.py", "mode": "ro"}}
    command, environment = ["python3", "/stub.py"], {"STUB_NAME": name}
    container = engine.containers.run(image, command, detach=True, environment=environment, volumes=volumes)
    try:
        container.reload()
        address = next(iter(container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
        eventually(lambda: asyncio.run(is_ready(address)), f"the stub {name} answers")
        yield container, address
    finally:
        container.remove(force=True)


@pytest.fixture(scope="module")
def addresses(engine: docker.DockerClient, base_image: str) -> Iterator[Addresses]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(running_stub(engine, base_image, name))[1] for name in CONTAINERS}


async def is_ready(address: str) -> bool:
    forwarder = Forwarder(address, PORT)
    try:
        return (await forwarder.request("GET", "/ping")).status == 200
    except NothingSent:
        return False
    finally:
        forwarder.close()


async def run_case(addresses: Addresses, case: Case, on_call: Callable[[StepCall], None] | None = None) -> GraphAnswer:
    """Run a case over the containers. `on_call` is told of each call once its request is under way."""
    forwarders = {name: Forwarder(address, PORT) for name, address in addresses.items()}

    async def call(made: StepCall) -> ContainerAnswer:
        answering = forwarders[made.target.name].request("POST", "/invocations", made.headers, made.body)
        if on_call is None:
            return await answering
        task = asyncio.create_task(answering)
        await asyncio.sleep(0.2)  # by now the container works on it; where it does not yet, the outcome is the same
        await asyncio.to_thread(on_call, made)
        return await task

    runner = GraphRunner(parse_graph(case.document), call, draw=drawing(*case.draws))
    try:
        return await runner.run(case.request(uuid.uuid4().hex))
    finally:
        await runner.close()
        for forwarder in forwarders.values():
            forwarder.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_graph_of_real_containers_answers_as_the_table_says(addresses: Addresses, case: Case) -> None:
    assert_answers(case, asyncio.run(run_case(addresses, case)))


def test_a_container_that_is_killed_at_work_is_passed_over_where_soft_and_named_where_hard(
    engine: docker.DockerClient, base_image: str, addresses: Addresses
) -> None:
    soft = Case(
        "",
        {"root": node("Ensemble", step("a"), step("e", StepName="victim", Dependency="Soft"))},
        {"a": [say(1)], "e": [HANG]},
        answer={"0": 1, "victim": None},
        trace=("root/0 Answered 200", "root/victim Failed"),
    )
    hard = Case(
        "",
        {"root": node("Sequence", step("a"), step("e", StepName="victim"))},
        status=0,
        failed_step="root/victim",
        trace=("root/0 Answered 200", "root/victim Failed"),
    )
    with running_stub(engine, base_image, "e") as (victim, address):

        def kill(made: StepCall) -> None:
            if made.target.name == "e":
                victim.kill()

        of_these = {**addresses, "e": address}
        assert_answers(soft, asyncio.run(run_case(of_these, soft, kill)))
        assert_answers(hard, asyncio.run(run_case(of_these, hard)))
