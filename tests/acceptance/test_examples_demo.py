"""scripts/demo, as a newcomer runs it: in containers, and as processes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import docker
import pytest

from support.platform import ROOT


@pytest.mark.parametrize("arguments", [[], ["--process"]], ids=["containers", "processes"])
def test_the_demo_scores_real_rows_and_leaves_nothing_behind(
    arguments: list[str], engine: docker.DockerClient, base_image: str
) -> None:
    images = image_tags(engine)
    done = subprocess.run(
        [str(ROOT / "scripts" / "demo"), *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accuracies = re.findall(r"held-out rows right: accuracy ([0-9.]+)", done.stdout)
    assert len(accuracies) == 2, done.stdout
    assert all(float(accuracy) > 0.94 for accuracy in accuracies), done.stdout
    home = re.search(r"records, logs (/tmp/rmdemo\.\w+)/home", done.stdout)
    assert home is not None, done.stdout
    assert not Path(home[1]).exists()
    assert containers_of(engine, home[1]) == []
    assert image_tags(engine) - images == set()


def image_tags(engine: docker.DockerClient) -> set[str]:
    return {tag for image in engine.images.list() for tag in image.tags if tag.startswith("raymaker-demo-")}


def containers_of(engine: docker.DockerClient, folder: str) -> list[str]:
    found = engine.containers.list(all=True, filters={"label": "raymaker.home"})
    return [container.name for container in found if container.labels["raymaker.home"].startswith(folder)]
