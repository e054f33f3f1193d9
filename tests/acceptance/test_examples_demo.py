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
    before = left_behind(engine)
    done = subprocess.run(
        [str(ROOT / "scripts" / "demo"), *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accuracies = re.findall(r"held-out rows right: accuracy ([0-9.]+)", done.stdout)
    assert len(accuracies) == 2, done.stdout
    assert all(float(accuracy) > 0.94 for accuracy in accuracies), done.stdout
    assert left_behind(engine) == before


def left_behind(engine: docker.DockerClient) -> set[str]:
    """Folders, images and containers that carry the demo's name."""
    folders = {str(path) for path in Path("/tmp").glob("rmdemo.*")}
    images = {tag for image in engine.images.list() for tag in image.tags if tag.startswith("raymaker-demo-")}
    containers = engine.containers.list(all=True, filters={"label": "raymaker.home"})
    return folders | images | {c.name for c in containers if c.labels["raymaker.home"].startswith("/tmp/rmdemo.")}
