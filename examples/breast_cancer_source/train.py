"""Logistic regression in numpy, as plain source: hyperparameters arrive as arguments, folders as SM_* variables."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning-rate", "--learning_rate", type=float, default=0.5)
    arguments, _ = parser.parse_known_args()

    channel, model = Path(os.environ["SM_CHANNEL_TRAIN"]), Path(os.environ["SM_MODEL_DIR"])
    table = np.concatenate([np.loadtxt(file, delimiter=",", ndmin=2) for file in sorted(channel.glob("**/*.csv"))])
    labels, features = table[:, 0], table[:, 1:]
    print(f"{len(labels)} rows with {features.shape[1]} features", flush=True)

    weights, bias = np.zeros(features.shape[1]), 0.0
    for epoch in range(1, arguments.epochs + 1):
        probabilities = 1 / (1 + np.exp(-(features @ weights + bias)))
        loss = -np.log(np.where(labels == 1, probabilities, 1 - probabilities) + 1e-12).mean()
        accuracy = ((probabilities > 0.5) == labels).mean()
        print(f"epoch={epoch} loss={loss:.4f} accuracy={accuracy:.4f}", flush=True)
        error = probabilities - labels
        weights -= arguments.learning_rate * features.T @ error / len(labels)
        bias -= arguments.learning_rate * error.mean()
    np.savez(model / "model.npz", weights=weights, bias=bias)


if __name__ == "__main__":
    main()
