"""k-means over rows that lie in many containers: none sees the others' rows, all move the same centroids.

Each container assigns its own rows to the nearest centroids; the sums and counts per centroid are added up through the
exchange (Lloyd's algorithm). The first ones are drawn among all rows, by lots that do not depend on who has which row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import raymaker_exchange

Array = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=50, help="at most")
    arguments, _ = parser.parse_known_args()
    with raymaker_exchange.join() as exchange:
        rows = read_rows(exchange)
        centroids = move(exchange, rows, first_centroids(exchange, rows, arguments.clusters), arguments.rounds)
        digest = hashlib.sha256(centroids.tobytes()).hexdigest()[:16]
        print(f"rank={exchange.rank} of {exchange.world_size} ended with centroids={digest}", flush=True)
        if exchange.rank == 0:
            np.savez(Path(os.environ["SM_MODEL_DIR"]) / "centroids.npz", centroids=centroids)


def read_rows(exchange: raymaker_exchange.Exchange) -> Array:
    """This container's rows, without the label. Where it was given all of them, it keeps each world_size-th."""
    files = sorted(Path(os.environ["SM_CHANNEL_TRAIN"]).glob("**/*.csv"))
    table = np.concatenate([np.loadtxt(file, delimiter=",", ndmin=2) for file in files])
    channels = json.loads(os.environ.get("SM_INPUT_DATA_CONFIG", "{}"))
    if channels.get("train", {}).get("S3DistributionType") != "ShardedByS3Key":
        table = table[exchange.rank :: exchange.world_size]
    print(f"rank={exchange.rank} of {exchange.world_size} has {len(table)} rows", flush=True)
    return np.ascontiguousarray(table[:, 1:])


def first_centroids(exchange: raymaker_exchange.Exchange, rows: Array, count: int) -> Array:
    """The mean of all rows, then rows drawn one by one, those far from all drawn before more often (k-means++).

    A row wins with a chance in proportion to its squared distance, in a race of exponential variables: each container
    needs to know only the best of its own rows. Arthur and Vassilvitskii 2007; Efraimidis and Spirakis 2006.
    """
    sums = np.append(rows.sum(axis=0), len(rows))
    exchange.all_reduce(sums)
    chosen = [sums[:-1] / sums[-1]]
    lots = np.array([draw_lot(row) for row in rows])
    while len(chosen) < count:
        finish = lots / np.maximum(nearest(rows, np.array(chosen))[1], 1e-12)
        ours = finish.argmin()
        candidates = exchange.all_gather(np.append(finish[ours], rows[ours]))
        chosen.append(candidates[candidates[:, 0].argmin(), 1:])
    return np.array(chosen)


def draw_lot(row: Array) -> float:
    """An exponential variable made from a row's content, and so the same in whichever container it lies."""
    uniform = (int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "big") + 1) / 2**64
    return -float(np.log(uniform))


def move(exchange: raymaker_exchange.Exchange, rows: Array, centroids: Array, rounds: int) -> Array:
    """Lloyd's rounds, until no centroid moves any more. Every rank comes to the same centroids."""
    count, features = centroids.shape
    sums = exchange.empty((count, features + 2), "float64")  # per centroid: its rows' sum, number, squared distances
    for number in range(1, rounds + 1):
        labels, distances = nearest(rows, centroids)
        members = (labels == np.arange(count)[:, None]).astype(np.float64)
        sums[:] = members @ np.column_stack([rows, np.ones(len(rows)), distances])
        exchange.all_reduce(sums)
        sizes = sums[:, features]
        moved = np.where(sizes[:, None] > 0, sums[:, :features] / np.maximum(sizes, 1)[:, None], centroids)
        shift = np.abs(moved - centroids).max()
        centroids = moved
        if exchange.rank == 0:
            inertia, smallest = sums[:, -1].sum(), int(sizes.min())
            print(f"round={number} inertia={inertia:.3f} shift={shift:.6f} smallest={smallest}", flush=True)
        if shift < 1e-9:
            break
    return centroids


def nearest(rows: Array, centroids: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Which centroid is nearest to each row, and the squared distance to it."""
    squares = ((rows[:, None, :] - centroids[None, :, :]) ** 2).sum(axis=2)
    return squares.argmin(axis=1), squares.min(axis=1)


if __name__ == "__main__":
    main()
