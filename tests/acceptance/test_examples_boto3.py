"""The stock boto3 script of the examples, unchanged, against a whole platform."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from support.platform import ROOT, Platform


def test_a_stock_boto3_script_trains_hosts_scores_and_cleans_up(
    platform: Platform, digits_image: str, digits: Path
) -> None:
    script = str(ROOT / "examples" / "boto3_stock.py")
    options = ["--endpoint-url", platform.url, "--image", digits_image, "--data", str(digits)]
    done = platform.run([sys.executable, script, *options, "--instance-type", "ml.t2.medium"])
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = re.search(r"held-out rows right, accuracy ([0-9.]+)", done.stdout)
    assert accuracy is not None, done.stdout
    assert float(accuracy[1]) > 0.94
    sagemaker = platform.client("sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_models(NameContains="digits-")["Models"] == []
    sagemaker.close()
