"""What the tests of serving share: an image that serves, and a Ray cluster with Serve as the platform starts it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from integration.serving.file_reporter import FileReporter
from integration.serving.serving_cluster import ServeCluster, driver_of, running_ray
from ray import serve

from raymaker.actors.site import Site
from raymaker.actors.storage import StoreConfig
from raymaker.serving.proxy import serve_environment, start_serve
from support import graph_stub
from support.servers import free_port

TESTS = Path(__file__).parents[2]
SCORING_IMAGE = f"raymaker-test-scoring:{os.getpid()}"
"""Of this session alone: another one may build, and remove, other content under the same name."""
GRAPH_IMAGE = f"raymaker-test-graph:{os.getpid()}"


@pytest.fixture(scope="session")
def scoring_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """An image whose `serve` is scoring_server.py."""
    with serving_image(engine, base_image, SCORING_IMAGE, Path(__file__).with_name("scoring_server.py")):
        yield SCORING_IMAGE


@pytest.fixture(scope="session")
def graph_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """An image whose `serve` is graph_stub.py."""
    with serving_image(engine, base_image, GRAPH_IMAGE, Path(graph_stub.__file__)):
        yield GRAPH_IMAGE


@contextlib.contextmanager
def serving_image(engine: docker.DockerClient, base_image: str, name: str, program: Path) -> Iterator[None]:
    """Build an image whose `serve` is a program, and remove it after the block."""
    dockerfile = f"FROM {base_image}\nCOPY serve /usr/local/bin/serve\n"
    context = io.BytesIO()
    with tarfile.open(mode="w", fileobj=context) as archive:
        for path, content, mode in (("Dockerfile", dockerfile.encode(), 0o644), ("serve", program.read_bytes(), 0o755)):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    context.seek(0)
    engine.images.build(fileobj=context, custom_context=True, tag=name, rm=True, forcerm=True)
    yield
    engine.images.remove(name, force=True)


@pytest.fixture(scope="module")
def cluster(scoring_image: str, base_image: str) -> Iterator[ServeCluster]:
    """Ray started as the platform starts it, in a short folder, since Unix sockets have short names."""
    home = Path(tempfile.mkdtemp(prefix="rm-"))
    port = free_port()
    (home / "token").write_text("ab" * 32)
    variables = {
        **serve_environment(
            home,
            host="127.0.0.1",
            port=port,
            stats_port=free_port(),
            metrics_port=free_port(),
            fallback_port=free_port(),
        ),
        "RAYMAKER_PROXY_HEADER_TIMEOUT_S": "2",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PYTHONPATH": str(TESTS),
    }
    site = Site(home=home, driver="docker", store=StoreConfig(), base_image=base_image)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():
            patch.setenv(name, value)
        pid, address = stack.enter_context(running_ray(home))
        driver = stack.enter_context(driver_of(address))
        driver.submit(start_serve, "127.0.0.1", port).result()
        yield ServeCluster(pid, port, driver, site, FileReporter(home / "reports.jsonl"), scoring_image)
        driver.submit(serve.shutdown).result()
