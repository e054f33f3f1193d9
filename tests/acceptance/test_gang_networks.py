"""A gang on two machines that have nothing in common but a wire, and each an address of its own."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import numpy as np
import pytest

from support.faults import eventually
from support.gangs import TRAIN, expected_weights, read_model
from support.namespaces import two_wired_machines
from support.platform import running_platform

STEPS, BALLAST = 12, 500_000
BALLAST_BYTES = 8 * BALLAST


@pytest.mark.long
def test_a_gang_trains_one_model_over_a_wire(engine: docker.DockerClient, base_image: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "train.py").write_text(TRAIN)
    (tmp_path / "types.toml").write_text("whole = { cpus = 2, memory_gib = 0.25 }\n")
    chosen = {"cpus": 2, "driver": "docker", "catalogue": tmp_path / "types.toml"}
    with two_wired_machines() as machines, running_platform(nodes=2, machines=machines, **chosen) as platform:
        eventually(lambda: platform.node_count() == 2, "the cluster has two nodes")
        command = ["train", f"--source={tmp_path}/source", "--entry-point=train.py", f"--output={tmp_path}/models"]
        command += ["--instance-type=whole", "--instance-count=2", "--placement=spread", "--wait", "--json"]
        before = [machine.sent_bytes() for machine in machines]
        done = platform.cli(*command, f"--hp=steps={STEPS}", f"--hp=ballast={BALLAST}")
        sent = [machine.sent_bytes() - had for machine, had in zip(machines, before, strict=True)]
        assert done.returncode == 0, (done.stdout, done.stderr)
        model = Path(json.loads(done.stdout)["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("file://"))
        made, weights = read_model(model.read_bytes())
        assert made == STEPS
        np.testing.assert_allclose(weights, expected_weights(STEPS), rtol=1e-9)
        assert min(sent) > STEPS * BALLAST_BYTES / 2, "arrays do not go over the wire"
    assert engine.containers.list(all=True, filters={"label": f"raymaker.home={platform.home}"}) == []
