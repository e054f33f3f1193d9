"""Write one of scikit-learn's bundled data sets as CSV files: FOLDER/train/train.csv and FOLDER/test/test.csv.

Rows start with the label, as SageMaker's own algorithms expect them. Features are scaled to a common range, or with
`--raw` left as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

DATASETS = {"digits": load_digits, "breast-cancer": load_breast_cancer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--raw", action="store_true", help="leave the features as they are")
    arguments = parser.parse_args()
    write_dataset(arguments.dataset, arguments.folder, scale=not arguments.raw)
    print(f"wrote {arguments.folder}/train/train.csv and {arguments.folder}/test/test.csv")


def write_dataset(dataset: str, folder: Path, *, scale: bool) -> None:
    """Shuffle, keep a fifth of the rows back for the test, and scale by what the training rows show."""
    features, labels = DATASETS[dataset](return_X_y=True)
    order = np.random.default_rng(seed=0).permutation(len(labels))
    rows, held_out = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    if scale:
        mean, spread = features[rows].mean(axis=0), features[rows].std(axis=0)
        features = (features - mean) / np.where(spread == 0, 1.0, spread)
    for name, chosen in (("train", rows), ("test", held_out)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        table = np.column_stack([labels[chosen], features[chosen]])
        np.savetxt(folder / name / f"{name}.csv", table, delimiter=",", fmt="%.6g")


if __name__ == "__main__":
    main()
