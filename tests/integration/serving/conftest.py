"""What the tests of serving share: an image that serves, and a Ray cluster with Serve as the platform starts it."""

from __future__ import annotations

import contextlib
import io
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
from support.servers import free_port

TESTS = Path(__file__).parents[2]
SCORING_IMAGE = "raymaker-test-scoring:latest"


@pytest.fixture(scope="session")
def scoring_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """An image whose `serve` is scoring_server.py."""
    program = Path(__file__).with_name("scoring_server.py").read_bytes()
    dockerfile = f"FROM {base_image}\nCOPY serve /usr/local/bin/serve\n"
    context = io.BytesIO()
    with tarfile.open(mode="w", fileobj=context) as archive:
        for name, content, mode in (("Dockerfile", dockerfile.encode(), 0o644), ("serve", program, 0o755)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    context.seek(0)
    image, _ = engine.images.build(fileobj=context, custom_context=True, tag=SCORING_IMAGE, rm=True, forcerm=True)
    yield SCORING_IMAGE
    engine.images.remove(str(image.id), force=True)


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
        stack.callback(shutil.rmtree, home)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():
            patch.setenv(name, value)
        pid, address = stack.enter_context(running_ray(home))
        driver = stack.enter_context(driver_of(address))
        driver.submit(start_serve, "127.0.0.1", port).result()
        yield ServeCluster(pid, port, driver, site, FileReporter(home / "reports.jsonl"), scoring_image)
        driver.submit(serve.shutdown).result()
