"""The container drivers under test, each in the same harness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.runtime_harness import Harness


@pytest.fixture
def docker_harness(home: Path, base_image: str) -> Iterator[Harness]:
    """The docker driver, on the running engine."""
    yield from _harness("docker", home, {"image": base_image})


@pytest.fixture
def process_harness(home: Path) -> Iterator[Harness]:
    """The process driver, with a staged source folder whose `train` says so."""
    source = home / "source"
    (source / "bin").mkdir(parents=True)
    (source / "code").mkdir()
    (source / "code" / "name.txt").write_text("the code")
    train = source / "bin" / "train"
    train.write_text("#!/bin/sh\necho train was run with: $*\n")
    train.chmod(0o755)
    yield from _harness("process", home, {"source_dir": str(source)})


@pytest.fixture(params=["docker", "process"])
def harness(request: pytest.FixtureRequest) -> Harness:
    """Every driver in turn."""
    driver: Harness = request.getfixturevalue(f"{request.param}_harness")
    return driver


def _harness(driver: str, home: Path, runs: dict[str, str]) -> Iterator[Harness]:
    harness = Harness(driver, home, runs)
    yield harness
    harness.remove_all()
