"""The three classifiers of the graph, in numpy: a linear one, nearest centroids, and a network with a hidden layer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


class Scaler:
    """Brings every feature to mean 0 and spread 1."""

    def __init__(self, mean: Array, spread: Array) -> None:
        self.mean, self.spread = mean, spread

    @classmethod
    def fit(cls, rows: Array) -> Scaler:
        """Learn what the training rows look like."""
        spread = rows.std(axis=0)
        return cls(rows.mean(axis=0), np.where(spread == 0, 1.0, spread))

    def scale(self, rows: Array) -> Array:
        """Scale rows of features."""
        return (rows - self.mean) / self.spread


class Centroids:
    """The nearest class mean; the nearer it is than the others, the surer."""

    def __init__(self, means: Array) -> None:
        self.means = means

    @classmethod
    def fit(cls, rows: Array, labels: Labels) -> Centroids:
        """Take the mean of each class."""
        return cls(np.stack([rows[labels == label].mean(axis=0) for label in range(labels.max() + 1)]))

    def probabilities(self, rows: Array) -> Array:
        """One row of class probabilities for each row of features."""
        distances = np.linalg.norm(rows[:, None, :] - self.means[None, :, :], axis=2)
        return softmax(-distances)


class Network:
    """Softmax regression, or with `hidden` units a network with one hidden layer."""

    def __init__(self, layers: list[Array]) -> None:
        self.layers = layers

    @classmethod
    def fit(cls, rows: Array, labels: Labels, hidden: int, epochs: int, rate: float = 0.1) -> Network:
        """Train by stochastic gradient descent, 32 rows at a time."""
        rng = np.random.default_rng(0)
        sizes = [rows.shape[1], *([hidden] if hidden else []), int(labels.max()) + 1]
        made = cls([rng.normal(0, np.sqrt(1 / inputs), (inputs + 1, outputs)) for inputs, outputs in pairwise(sizes)])
        for _ in range(epochs):
            order = rng.permutation(len(labels))
            for start in range(0, len(order), 32):
                chosen = order[start : start + 32]
                made._step(rows[chosen], labels[chosen], rate)
        return made

    def probabilities(self, rows: Array) -> Array:
        """One row of class probabilities for each row of features."""
        return self._forward(rows)[-1]

    def _forward(self, rows: Array) -> list[Array]:
        """What goes into each layer, and last the probabilities."""
        values = [with_ones(rows)]
        for layer in self.layers[:-1]:
            values.append(with_ones(np.maximum(values[-1] @ layer, 0)))
        return [*values, softmax(values[-1] @ self.layers[-1])]

    def _step(self, rows: Array, labels: Labels, rate: float) -> None:
        *inputs, error = self._forward(rows)
        error[np.arange(len(labels)), labels] -= 1
        error /= len(labels)
        for index in reversed(range(len(self.layers))):
            gradient = inputs[index].T @ error
            error = ((error @ self.layers[index].T) * (inputs[index] > 0))[:, :-1]
            self.layers[index] -= rate * gradient


def softmax(scores: Array) -> Array:
    """Turn each row of scores into probabilities."""
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def with_ones(rows: Array) -> Array:
    """Add the column that a layer's last row of weights, its bias, is multiplied with."""
    return np.column_stack([rows, np.ones(len(rows))])


def save(folder: Path, scaler: Scaler, linear: Network, centroids: Centroids, big: Network) -> None:
    """Write all of them to one file, readable without pickle."""
    np.savez(
        folder / "models.npz",
        mean=scaler.mean,
        spread=scaler.spread,
        means=centroids.means,
        linear=linear.layers[0],
        hidden=big.layers[0],
        output=big.layers[1],
    )


def load(folder: Path) -> tuple[Scaler, dict[str, Network | Centroids]]:
    """Read the scaler and the classifiers, by the names of their containers."""
    with np.load(folder / "models.npz") as stored:
        classifiers = {
            "linear": Network([stored["linear"]]),
            "centroid": Centroids(stored["means"]),
            "big": Network([stored["hidden"], stored["output"]]),
        }
        return Scaler(stored["mean"], stored["spread"]), classifiers
