"""The mean of every class, of rows that are shared out among all ranks: one all-reduce makes the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mpi4py import MPI

ROOT = Path("/opt/ml")

world = MPI.COMM_WORLD
files = sorted((ROOT / "input/data/train").glob("**/*.csv"))
table = np.concatenate([np.loadtxt(file, delimiter=",", ndmin=2) for file in files])
ours = table[world.rank :: world.size]
print(f"rank={world.rank} of {world.size} has {len(ours)} of {len(table)} rows", flush=True)

sums = np.zeros((int(table[:, 0].max()) + 1, table.shape[1]))
for label, *row in ours:
    sums[int(label)] += [1.0, *row]
total = np.empty_like(sums)
world.Allreduce(sums, total)
if world.rank == 0:
    np.savez(ROOT / "model/model.npz", means=total[:, 1:] / total[:, :1])
