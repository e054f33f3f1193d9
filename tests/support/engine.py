"""The container engine that already runs on this machine (`scripts/test` starts one), and the base image for tests."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import docker.errors
import pytest

BASE_IMAGE = "raymaker-base:bookworm"


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of the running engine."""
    try:
        client = docker.from_env(timeout=120)
    except docker.errors.DockerException as error:
        pytest.fail(f"no container engine answers ({error}): run the tests with scripts/test, which starts one")
    yield client
    client.close()


@pytest.fixture(scope="session")
def base_image(engine: docker.DockerClient) -> str:
    """The name of a Debian image with sh, perl, python3 and numpy."""
    try:
        engine.images.get(BASE_IMAGE)
    except docker.errors.ImageNotFound:
        pytest.fail(f"the engine has no image {BASE_IMAGE}: run the tests with scripts/test, which makes it")
    return BASE_IMAGE
