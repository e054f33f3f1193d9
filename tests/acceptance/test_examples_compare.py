"""Two images on the same data, judged on the same rows, and the better one served: the example from end to end."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from support.jobs import fresh_name
from support.platform import ROOT, Platform


@pytest.fixture
def nearest_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    name = f"raymaker-test-{fresh_name('nearest')}"
    folder = ROOT / "examples" / "nearest_image"
    engine.images.build(path=str(folder), tag=name, buildargs={"BASE_IMAGE": base_image}, rm=True)
    yield name
    engine.images.remove(name, force=True)


def test_the_better_of_two_images_is_found_and_served(
    platform: Platform, digits: Path, digits_image: str, nearest_image: str
) -> None:
    script = str(ROOT / "examples" / "compare_driver.py")
    done = platform.run([sys.executable, script, str(digits), digits_image, nearest_image, "--url", platform.url])
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\w+) +([\d.]+) +([\d.]+)$", done.stdout, re.MULTILINE)
    compared = {name: (float(one), float(other)) for name, one, other in rows}
    assert set(compared) == {"accuracy", "log_loss", "f1", "latency_p50"}
    accuracy = compared["accuracy"]
    assert accuracy[0] > 0.94
    assert 0.8 < accuracy[1] < accuracy[0]
    assert compared["log_loss"][0] < compared["log_loss"][1]
    said = r"^(\S+): The model is that of a, the best by accuracy: a 0.9\d+, b 0.8\d+$"
    job = re.search(said, done.stdout, re.MULTILINE)
    assert job is not None, done.stdout
    served = re.search(r"held-out rows right, accuracy ([\d.]+)", done.stdout)
    assert served is not None, done.stdout
    assert float(served[1]) == pytest.approx(accuracy[0], abs=5e-5)
    image = digits / "worst.svg"
    drawn = platform.cli("records", f"{job[1]}-a", "--pictures", "8x8", "--image", str(image))
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.count("said") == 10
    assert image.read_text().startswith("<svg")
