"""Train all models of the graph on rows whose first field is the label, and say how good each is on those rows."""

from __future__ import annotations

import os
from pathlib import Path

import models
import numpy as np


def main() -> None:
    files = sorted(Path(os.environ["SM_CHANNEL_TRAIN"]).glob("**/*.csv"))
    table = np.concatenate([np.loadtxt(file, delimiter=",", ndmin=2) for file in files])
    labels, raw = table[:, 0].astype(np.int64), table[:, 1:]
    scaler = models.Scaler.fit(raw)
    rows = scaler.scale(raw)
    linear = models.Network.fit(rows, labels, hidden=0, epochs=5)
    centroids = models.Centroids.fit(rows, labels)
    big = models.Network.fit(rows, labels, hidden=128, epochs=30)
    for name, model in {"linear": linear, "centroid": centroids, "big": big}.items():
        accuracy = (model.probabilities(rows).argmax(axis=1) == labels).mean()
        print(f"{name}: accuracy={accuracy:.4f}", flush=True)
    models.save(Path(os.environ["SM_MODEL_DIR"]), scaler, linear, centroids, big)


if __name__ == "__main__":
    main()
