"""The image whose `serve` is transforming_server.py."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

NAME = f"raymaker-test-transforming:{os.getpid()}"


@pytest.fixture(scope="session")
def transforming_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """The name of the image, in the engine."""
    program = Path(__file__).with_name("transforming_server.py").read_bytes()
    dockerfile = f"FROM {base_image}\nCOPY serve /usr/local/bin/serve\n"
    context = io.BytesIO()
    with tarfile.open(mode="w", fileobj=context) as archive:
        for name, content, mode in (("Dockerfile", dockerfile.encode(), 0o644), ("serve", program, 0o755)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    context.seek(0)
    engine.images.build(fileobj=context, custom_context=True, tag=NAME, rm=True, forcerm=True)
    yield NAME
    engine.images.remove(NAME, force=True)
