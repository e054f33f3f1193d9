"""scripts/demo, as a newcomer runs it: in containers, and as processes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import docker
import pytest

from support.platform import ROOT


@pytest.mark.parametrize("arguments", [[], ["--process"]], ids=["containers", "processes"])
def test_the_demos_containers_agree_and_score_real_rows_and_all_is_taken_down(
    arguments: list[str], engine: docker.DockerClient, base_image: str
) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts" / "demo"), *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    compared = done.stdout.partition("do they agree?")[2]
    ends = re.findall(r"^algo-\d \| rank=(\d) of 2 ended with weights=(\w+)$", compared, re.MULTILINE)
    assert sorted(rank for rank, _ in ends) == ["0", "1"], done.stdout
    assert len({weights for _, weights in ends}) == 1, done.stdout
    judged = done.stdout.partition("judge the model")[2]
    assert re.search(r"^accuracy +0\.9\d+", judged, re.MULTILINE), done.stdout
    assert len(re.findall(r"\d, said \d", judged)) == 5, done.stdout
    accuracies = re.findall(r"held-out rows right: accuracy ([0-9.]+)", done.stdout)
    assert len(accuracies) == 2, done.stdout
    assert all(float(accuracy) > 0.94 for accuracy in accuracies), done.stdout
    home = re.search(r"records, logs (/tmp/rmdemo\.\w+)/home", done.stdout)
    assert home is not None, done.stdout
    assert not Path(home[1]).exists()
    assert containers_of(engine, home[1]) == []


def containers_of(engine: docker.DockerClient, folder: str) -> list[str]:
    found = engine.containers.list(all=True, filters={"label": "raymaker.home"})
    return [container.name for container in found if container.labels["raymaker.home"].startswith(folder)]
