"""A small network trained by any number of containers at once: each takes its rows, and all add up their gradients.

A step uses every row, so the model is the same (but for rounding) however many containers share them. Outside raymaker
it trains alone: PYTHONPATH=actors/exchange SM_CHANNEL_TRAIN=... SM_MODEL_DIR=... python train.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import raymaker_exchange
from network import Array, Network

CHECKPOINTS = Path("/opt/ml/checkpoints")
"""Is there where the job has a CheckpointConfig; what lies in it comes back when the job starts again."""
MOMENTUM = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--learning-rate", "--learning_rate", type=float, default=0.2)
    parser.add_argument("--checkpoint-every", "--checkpoint_every", type=int, default=10, help="epochs")
    arguments, _ = parser.parse_known_args()
    with raymaker_exchange.join() as exchange:
        rows, labels = read_rows(exchange)
        network = make_network(exchange, rows, labels, arguments.hidden)
        train(exchange, network, rows, labels, arguments)
        digest = hashlib.sha256(network.weights.tobytes()).hexdigest()[:16]
        print(f"rank={exchange.rank} of {exchange.world_size} ended with weights={digest}", flush=True)
        if exchange.rank == 0:
            network.save(Path(os.environ["SM_MODEL_DIR"]) / "network.npz")


def read_rows(exchange: raymaker_exchange.Exchange) -> tuple[Array, npt.NDArray[np.int64]]:
    """This container's rows. Where every container was given all of them, it keeps each world_size-th."""
    files = sorted(Path(os.environ["SM_CHANNEL_TRAIN"]).glob("**/*.csv"))
    tables = [np.loadtxt(file, delimiter=",", ndmin=2) for file in files if file.stat().st_size]
    channels = json.loads(os.environ.get("SM_INPUT_DATA_CONFIG", "{}"))
    is_shard = channels.get("train", {}).get("S3DistributionType") == "ShardedByS3Key"
    seen = np.concatenate(tables) if tables else np.empty((0, 1))
    table = seen if is_shard else seen[exchange.rank :: exchange.world_size]
    print(f"rank={exchange.rank} of {exchange.world_size} has {len(table)} rows of {len(seen)} seen", flush=True)
    return table[:, 1:], table[:, 0].astype(np.int64)


def make_network(
    exchange: raymaker_exchange.Exchange, rows: Array, labels: npt.NDArray[np.int64], hidden: int
) -> Network:
    """The same network at every rank, with as many features and classes as any of them has seen."""
    sizes = np.array([rows.shape[1], labels.max(initial=0) + 1])
    exchange.all_reduce(sizes, op="max")
    features, classes = sizes.tolist()
    return Network.random(features, hidden, classes, seed=0)


def train(
    exchange: raymaker_exchange.Exchange,
    network: Network,
    rows: Array,
    labels: npt.NDArray[np.int64],
    arguments: argparse.Namespace,
) -> None:
    """Gradient descent with momentum; every rank makes the same steps, from the same sums."""
    stop = StopFlag()
    rows = rows.reshape(-1, network.sizes[0])  # a rank without any row takes part all the same
    # Four sums travel with the gradient: loss, right answers, rows, and how many ranks are asked to stop. The array
    # lies in the memory that the containers share, so that none of it is copied.
    sums = exchange.empty(network.weights.size + 4, "float64")
    gradient, totals = sums[:-4], sums[-4:]
    state = resume(exchange, network.weights)
    epoch, weights, velocity = int(state[0]), *np.split(state[1:], 2)
    network.weights[:] = weights
    while epoch < arguments.epochs:
        totals[:2] = network.gradient(rows, labels, into=gradient)
        totals[2:] = len(rows), stop.asked
        exchange.all_reduce(sums)
        loss, right, row_count, stops = totals
        velocity = MOMENTUM * velocity - arguments.learning_rate * gradient / row_count
        network.weights += velocity
        epoch += 1
        if exchange.rank == 0:
            print(f"epoch={epoch} loss={loss / row_count:.4f} accuracy={right / row_count:.4f}", flush=True)
            if epoch % arguments.checkpoint_every == 0 or stops:
                save_checkpoint(epoch, network.weights, velocity)
        if stops:
            print(f"rank={exchange.rank} stops after epoch {epoch}, as it was asked", flush=True)
            break


def resume(exchange: raymaker_exchange.Exchange, weights: Array) -> Array:
    """Epochs done, weights and velocity, from rank 0's last checkpoint or from the start; the same at every rank."""
    state = np.concatenate([[0.0], weights, np.zeros_like(weights)])
    files = sorted(CHECKPOINTS.glob("epoch-*.npz"))
    if exchange.rank == 0 and files:
        with np.load(files[-1]) as stored:
            state[:] = np.concatenate([[stored["epoch"]], stored["weights"], stored["velocity"]])
        print(f"going on from checkpoint {files[-1].name}", flush=True)
    exchange.broadcast(state, root=0)
    return state


def save_checkpoint(epoch: int, weights: Array, velocity: Array) -> None:
    """Write a checkpoint that is there as a whole or not at all, where the job keeps any."""
    if CHECKPOINTS.is_dir():
        part = CHECKPOINTS / f".epoch-{epoch:04d}.part"
        with part.open("wb") as file:
            np.savez(file, epoch=epoch, weights=weights, velocity=velocity)
        part.replace(CHECKPOINTS / f"epoch-{epoch:04d}.npz")


class StopFlag:
    """Set by SIGTERM, which announces that the job is to end."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


if __name__ == "__main__":
    main()
