"""The algorithm in C reads the same contract: as source compiled beforehand, and as an image of nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from raymaker.platform.client import Client
from support.platform import ROOT, Platform

IMAGE = f"raymaker-test-c-linear:{os.getpid()}"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its two programs beside it."""
    folder = tmp_path_factory.mktemp("c") / "c_linear"
    shutil.copytree(ROOT / "examples" / "c_linear", folder)
    subprocess.run([str(folder / "build.sh")], check=True)
    return folder


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, compiled: Path) -> Iterator[str]:
    """An image that holds the two programs and nothing else."""
    engine.images.build(path=str(compiled), tag=IMAGE, rm=True)
    yield IMAGE
    engine.images.remove(IMAGE, force=True)


@pytest.mark.parametrize("kind", ["source", "image"])
def test_an_algorithm_in_c_trains_and_scores(
    kind: str, platform: Platform, compiled: Path, breast_cancer: Path, request: pytest.FixtureRequest
) -> None:
    algorithm = (
        {"source": compiled, "entry_point": "train"}
        if kind == "source"
        else {"image": request.getfixturevalue("image")}
    )
    pairs = [line.split(",", 1) for line in (breast_cancer / "test" / "test.csv").read_text().splitlines()]
    with Client(platform.url) as client:
        job = client.train(
            **algorithm,
            inputs={"train": breast_cancer / "train"},
            output=breast_cancer / "models",
            hyperparameters={"epochs": 12, "learning_rate": 0.02},
        )
        endpoint = job.wait(progress=False).deploy()
        answers = endpoint.invoke("\n".join(row for _, row in pairs), content_type="text/csv").text.split()
        endpoint.delete(wait=True)
    right = sum((float(answer) > 0.5) == (label == "1") for answer, (label, _) in zip(answers, pairs, strict=True))
    assert right / len(pairs) > 0.94
