"""What the acceptance tests share: real data on disk, and the example image in the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from support.platform import ROOT

DIGITS_IMAGE = f"raymaker-test-digits:{os.getpid()}"
"""Of this session alone: another one may build, and remove, the same content under its own name."""


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits data set, as prepare_data.py writes it."""
    return prepare("digits", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def breast_cancer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast-cancer data set, as prepare_data.py writes it."""
    return prepare("breast-cancer", tmp_path_factory.mktemp("breast-cancer"))


@pytest.fixture(scope="session")
def digits_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """The name of the example image, built on the base image of the tests."""
    folder = ROOT / "examples" / "digits_image"
    engine.images.build(path=str(folder), tag=DIGITS_IMAGE, buildargs={"BASE_IMAGE": base_image}, rm=True)
    yield DIGITS_IMAGE
    engine.images.remove(DIGITS_IMAGE)


def prepare(dataset: str, folder: Path) -> Path:
    subprocess.run([sys.executable, str(ROOT / "examples" / "prepare_data.py"), dataset, str(folder)], check=True)
    return folder
