"""The main job on PostgreSQL and without a container engine: the other database and the other driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.database import PostgresCluster
from support.platform import ROOT, Platform, running_platform


@pytest.fixture
def other_platform(postgres: PostgresCluster) -> Iterator[Platform]:
    name = postgres.create_database()
    with running_platform(driver="process", database_url=postgres.url(name)) as running:
        yield running
    postgres.drop_database(name)


def test_source_code_is_trained_deployed_and_scored_as_processes_with_records_in_postgresql(
    other_platform: Platform, breast_cancer: Path
) -> None:
    source = str(ROOT / "examples" / "breast_cancer_source")
    arguments = ["--source", source, "--entry-point", "train.py", "--input", f"train={breast_cancer / 'train'}"]
    output = ["--output", str(other_platform.home / "models"), "--name", "first", "--wait"]
    trained = other_platform.cli("train", *arguments, *output)
    assert trained.returncode == 0, trained.stderr
    deployed = other_platform.cli("deploy", "first", "--name", "tumours")
    assert deployed.returncode == 0, deployed.stderr
    rows = (breast_cancer / "test" / "test.csv").read_text().splitlines()[:20]
    features = "\n".join(row.partition(",")[2] for row in rows)
    scored = other_platform.cli("invoke", "tumours", "--data", features, "--content-type", "text/csv")
    assert scored.returncode == 0, scored.stderr
    right = sum(
        (row[0] == "1") == (float(answer) > 0.5) for row, answer in zip(rows, scored.stdout.split(), strict=True)
    )
    assert right >= 17
    refused = other_platform.cli("train", "--image", "any:image", "--output", "/tmp/nowhere", "--wait", "--json")
    assert refused.returncode == 1
    assert "container engine" in json.dumps(refused.stderr)
    assert other_platform.cli("delete", "tumours").returncode == 0
    assert not (other_platform.home / "raymaker.sqlite3").exists()
