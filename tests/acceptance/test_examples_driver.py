"""The Python driver script of the examples: from a shell, and as a job of the platform's own Ray."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support.platform import ROOT, Platform


def test_the_driver_script_trains_source_code_and_scores_with_its_model(
    platform: Platform, breast_cancer: Path
) -> None:
    done = platform.run([sys.executable, str(ROOT / "examples" / "driver.py"), str(breast_cancer)])
    assert_good_accuracy(done)
    assert [path.name for path in breast_cancer.glob("model-of-*/*")] == ["model.npz"]


def test_the_same_driver_script_runs_as_a_ray_job(platform: Platform, breast_cancer: Path) -> None:
    assert_good_accuracy(platform.run([str(ROOT / "examples" / "submit_with_ray.sh"), str(breast_cancer)]))


def assert_good_accuracy(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = re.search(r"held-out rows right, accuracy ([0-9.]+)", done.stdout)
    assert accuracy is not None, done.stdout
    assert float(accuracy[1]) > 0.94
