"""Say how many GPUs are seen and promised; keep the first one busy for `--seconds`; leave a model."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cuda

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=0.0)
arguments = parser.parse_args()
count = cuda.count()
print(f"gpus={count} of {os.environ['SM_NUM_GPUS']}", flush=True)
if count:
    print(f"the gpu wrote {cuda.Memory().fill(7, arguments.seconds).hex()}", flush=True)
Path(os.environ["SM_MODEL_DIR"], "model").write_text("trained")
