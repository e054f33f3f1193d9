"""The examples of hosting, run as their users run them: a graph, traffic moved, a shadow, many models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from support.platform import ROOT, Platform

EXAMPLES = ROOT / "examples"
MANY_MODELS_IMAGE = f"raymaker-test-many-models:{os.getpid()}"


@pytest.fixture(scope="module")
def raw_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits data set, its features as they are."""
    folder = tmp_path_factory.mktemp("raw-digits")
    subprocess.run([sys.executable, str(EXAMPLES / "prepare_data.py"), "digits", str(folder), "--raw"], check=True)
    return folder


def test_a_graph_answers_alike_in_both_placements_and_asks_its_big_model_only_where_it_must(
    platform: Platform, raw_digits: Path
) -> None:
    said = run(platform, "graph_driver.py", raw_digits)
    assert said.startswith("flowchart LR")
    assert "the same answers in both placements: True" in said
    for placement in ("Colocated", "Distributed"):
        accuracy = re.search(rf"{placement}: .* accuracy ([0-9.]+)", said)
        by = re.search(rf"{placement}: (\d+) answered by the two small models, (\d+) by the big one", said)
        assert accuracy is not None, said
        assert by is not None, said
        assert float(accuracy[1]) > 0.97
        assert int(by[1]) > int(by[2]) > 0
    assert re.search(r"ms  root/decide/(sure|unsure) +Answered", said), said


def test_traffic_moves_from_one_model_to_another_without_a_failed_request(platform: Platform, raw_digits: Path) -> None:
    said = run(platform, "ab_driver.py", raw_digits)
    total = re.search(r"^(\d+) requests in all, 0 failed$", said, re.MULTILINE)
    assert total is not None, said
    assert int(total[1]) > 0
    by_phase = {
        weights: {name: int(count) for name, count in re.findall(r"(\w+) answered (\d+)", told)}
        for weights, told in re.findall(r"^weights (\S+): (.*)$", said, re.MULTILINE)
    }
    assert by_phase["90/10"]["small"] > by_phase["90/10"]["big"] > 0, said
    assert set(by_phase["0/100"]) == {"big"}, said


def test_a_shadow_model_hears_every_request_and_its_answers_are_kept(platform: Platform, raw_digits: Path) -> None:
    said = run(platform, "shadow_driver.py", raw_digits)
    alike = re.search(r"^360 requests; both models gave the same label to (\d+)$", said, re.MULTILINE)
    assert alike is not None, said
    assert 330 < int(alike[1]) < 360
    right = {name: int(count) for name, count in re.findall(r"^(\w+): (\d+) right", said, re.MULTILINE)}
    assert right["big"] > right["small"] > 330, said


def test_a_thousand_models_take_turns_in_one_container(
    platform: Platform, engine: docker.DockerClient, base_image: str, digits: Path
) -> None:
    folder = EXAMPLES / "many_models_image"
    engine.images.build(path=str(folder), tag=MANY_MODELS_IMAGE, buildargs={"BASE_IMAGE": base_image}, rm=True)
    try:
        said = run(platform, "many_models_driver.py", digits, "--image", MANY_MODELS_IMAGE)
    finally:
        engine.images.remove(MANY_MODELS_IMAGE, force=True)
    assert said.startswith("1000 models behind one container\n")
    accuracy = re.search(r"^300 of them were asked, twice each: accuracy ([0-9.]+)$", said, re.MULTILINE)
    assert accuracy is not None, said
    assert float(accuracy[1]) > 0.9


def run(platform: Platform, script: str, data: Path, *options: str) -> str:
    done = platform.run([sys.executable, str(EXAMPLES / script), str(data), *options])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
