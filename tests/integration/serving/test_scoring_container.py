"""A real scoring container on a real engine: healthy, dying, silent, stopped; and HTTP to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from raymaker.actors.algorithm import prepare_algorithm
from raymaker.actors.errors import ScoringError
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LogLine
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.scoring import ScoringContainer
from raymaker.actors.site import Site
from raymaker.actors.spec import Resources, ScoringSpec
from raymaker.actors.storage import ObjectStore, StoreConfig
from raymaker.serving.errors import NoAnswer, NothingSent
from raymaker.serving.forward import Forwarder

Make = Callable[..., ScoringContainer]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(
    engine: docker.DockerClient, scoring_image: str, base_image: str, home: Path, said: list[str]
) -> Iterator[Make]:
    """Make a scoring container of the test image; it is removed at the end."""
    runtime = DockerRuntime(home)
    site = Site(home=home, driver="docker", store=StoreConfig(), base_image=base_image)
    made: list[ScoringContainer] = []

    def on_log(lines: list[LogLine]) -> None:
        said.extend(line.text for line in lines)

    def make_container(mode: str = "", startup_timeout_s: float = 30) -> ScoringContainer:
        spec = ScoringSpec(
            scoring_image,
            environment={"MODE": mode},
            startup_timeout_s=startup_timeout_s,
            resources=Resources(cpus=1, memory_bytes=256 * 2**20),
        )
        algorithm = prepare_algorithm(runtime, ObjectStore(), site, image=spec.image, source=None)
        container = ScoringContainer(
            runtime,
            algorithm,
            spec,
            name=f"raymaker-test-scoring-{home.parent.name}-{len(made)}"[-100:],
            folder=home / "model",
            labels={LABEL_KIND: "scoring"},
            on_log=on_log,
        )
        made.append(container)
        return container

    yield make_container
    for container in made:
        container.remove()
    assert runtime.owned({LABEL_HOME: str(home)}) == []


def test_a_container_that_answers_ping_is_started_and_stopped_with_its_log(make: Make, said: list[str]) -> None:
    container = make()
    _, port = container.start()
    assert port == 8080
    container.stop()
    assert container.wait().startswith("exit code 0")
    container.remove()
    assert said == ["starting in mode ''"]


def test_a_container_that_ends_at_once_is_an_error_with_its_last_words(make: Make) -> None:
    with pytest.raises(ScoringError, match=r"(?s)exit code 3.*starting in mode 'exit'"):
        make("exit").start()


def test_a_container_without_a_server_is_given_up_after_its_time(make: Make) -> None:
    with pytest.raises(ScoringError, match=r"(?s)within 1 s.*ContainerStartupHealthCheckTimeout.*mode 'no-server'"):
        make("no-server", startup_timeout_s=1).start()


def test_a_ping_that_hangs_is_not_waited_for_beyond_the_time(make: Make) -> None:
    with pytest.raises(ScoringError, match="timed out"):
        make("hang", startup_timeout_s=1).start()


def test_a_ping_that_answers_an_error_is_told(make: Make) -> None:
    with pytest.raises(ScoringError, match="status 503"):
        make("never-ready", startup_timeout_s=1).start()


def test_a_container_can_be_started_again_after_its_end(make: Make) -> None:
    container = make()
    container.start()
    container.kill()
    container.wait()
    container.start()


def test_a_start_that_is_under_way_ends_when_the_container_is_stopped(make: Make) -> None:
    container = make("no-server", startup_timeout_s=600)

    async def story() -> None:
        starting = asyncio.create_task(asyncio.to_thread(container.start))
        while container._handle is None:  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.05)
        await asyncio.to_thread(container.stop)
        with pytest.raises(ScoringError):
            await starting

    asyncio.run(story())


def test_requests_reuse_a_connection_and_carry_bytes_of_any_kind(make: Make) -> None:
    address = make().start()

    async def story() -> None:
        container = Forwarder(*address)
        for body in (b"", b"\x00\xff\r\n\r\n", bytes(range(256)) * 40_000):
            answer = await container.request(
                "POST", "/invocations", [(b"content-type", b"text/csv; charset=utf-8")], body
            )
            assert (answer.status, answer.body) == (200, body)
            assert dict(answer.headers)[b"content-type"] == b"text/csv; charset=utf-8"
        assert len(container._idle) == 1
        container.close()

    asyncio.run(story())


def test_an_answer_that_never_comes_says_so_and_a_closed_port_says_that_nothing_was_sent(make: Make) -> None:
    host, port = make().start()

    async def story() -> None:
        container, nobody = Forwarder(host, port), Forwarder(host, port + 1)
        with pytest.raises(NoAnswer, match="closed the connection"):
            await container.request("POST", "/invocations", [(b"x-amzn-sagemaker-custom-attributes", b"drop")], b"x")
        with pytest.raises(NothingSent):
            await nobody.request("POST", "/invocations", (), b"x")
        container.close()

    asyncio.run(story())


def test_a_cancelled_request_takes_its_connection_along(make: Make) -> None:
    address = make().start()

    async def story() -> None:
        container = Forwarder(*address)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await container.request("POST", "/invocations", [(b"x-amzn-sagemaker-custom-attributes", b"sleep 30")])
        assert time.monotonic() - began < 10
        assert len(container._idle) == 0
        assert (await container.request("GET", "/ping")).status == 200
        container.close()

    asyncio.run(story())
