"""Logistic regression that listens: its learning rate, and the code of its step, may change while it trains.

    raymaker update JOB --hp learning_rate=0.05
    raymaker update JOB --source my-other-step

With several containers rank 0 listens and tells the others, so that all change at the same epoch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import raymaker_exchange

Array = npt.NDArray[np.float64]
Step = Callable[[Array, Array, Array], tuple[Array, float]]
CHECKPOINTS = Path("/opt/ml/checkpoints")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--learning_rate", type=float, default=0.5)
    parser.add_argument("--pace_s", type=float, default=0.0, help="a pause after each epoch, to watch")
    arguments, _ = parser.parse_known_args()
    with raymaker_exchange.join() as exchange:
        labels, features = read_rows(exchange)
        weights, begun = restore(features.shape[1])
        exchange.broadcast(weights)
        rate, step = arguments.learning_rate, load_step(Path(__file__).parent)
        print(f"rank={exchange.rank} has {len(labels)} rows and goes on from epoch {begun}", flush=True)
        for epoch in range(begun + 1, arguments.epochs + 1):
            change = hear(exchange)
            if "hyperparameters" in change.get("changed", ()):
                rate = float(change["hyperparameters"]["learning_rate"])
            if "code" in change.get("changed", ()):
                step = load_step(Path(change["code"]))
            if change:
                print(f"rank={exchange.rank} goes on with revision {change['revision']}, rate={rate}", flush=True)
            gradient, loss = step(weights, features, labels)
            sums = np.append(gradient, [loss, len(labels)])
            exchange.all_reduce(sums)
            weights -= rate * sums[:-2] / sums[-1]
            if exchange.rank == 0:
                print(f"epoch={epoch} loss={sums[-2] / sums[-1]:.6f} rate={rate:g}", flush=True)
                save(weights, epoch)
            time.sleep(arguments.pace_s)
        if exchange.rank == 0:
            np.save(Path(os.environ["SM_MODEL_DIR"]) / "weights.npy", weights)


def read_rows(exchange: raymaker_exchange.Exchange) -> tuple[Array, Array]:
    """This container's rows, with a column of ones: each world_size-th of what all were given."""
    files = sorted(Path(os.environ["SM_CHANNEL_TRAIN"]).glob("**/*.csv"))
    table = np.concatenate([np.loadtxt(file, delimiter=",", ndmin=2) for file in files])
    table = table[exchange.rank :: exchange.world_size]
    return table[:, 0], np.column_stack([table[:, 1:], np.ones(len(table))])


def hear(exchange: raymaker_exchange.Exchange) -> dict[str, Any]:
    """What has changed, the same for all ranks at the same epoch; empty where nothing has. One small call per epoch."""
    change = exchange.changes() if exchange.rank == 0 else None
    if change:
        exchange.put_document(f"change-{change.revision}", change._asdict())
    revision = exchange.broadcast(np.array([change.revision if change else 0], np.int64))[0]
    return (exchange.get_document(f"change-{revision}", wait_s=60) or {}) if revision else {}


def load_step(folder: Path) -> Step:
    """The function `step` of the step.py that lies in a folder."""
    spec = importlib.util.spec_from_file_location("step", folder / "step.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    print(f"the step is {module.NAME}", flush=True)
    step: Step = module.step
    return step


def restore(feature_count: int) -> tuple[Array, int]:
    """The newest checkpoint's weights and its epoch; zeros where there is none."""
    found = sorted(CHECKPOINTS.glob("epoch-*.json")) if CHECKPOINTS.is_dir() else []
    if not found:
        return np.zeros(feature_count), 0
    kept = json.loads(found[-1].read_text())
    return np.array(kept["weights"]), kept["epoch"]


def save(weights: Array, epoch: int) -> None:
    """Keep a checkpoint every ten epochs, where the job has a place for them."""
    if epoch % 10 or not CHECKPOINTS.is_dir():
        return
    part = CHECKPOINTS / f".epoch-{epoch}"
    part.write_text(json.dumps({"epoch": epoch, "weights": weights.tolist()}))
    part.rename(CHECKPOINTS / f"epoch-{epoch:08d}.json")


if __name__ == "__main__":
    main()
