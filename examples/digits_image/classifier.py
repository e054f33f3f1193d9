"""A classifier with one hidden layer, in numpy: fit it, save it, load it, ask it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass
class Classifier:
    """Weights of `softmax(relu(x @ hidden + hidden_bias) @ output + output_bias)`."""

    hidden: Array
    hidden_bias: Array
    output: Array
    output_bias: Array

    @classmethod
    def random(cls, features: int, hidden: int, classes: int, seed: int) -> Classifier:
        """Weights to start from."""
        rng = np.random.default_rng(seed)
        return cls(
            rng.normal(0, np.sqrt(2 / features), (features, hidden)),
            np.zeros(hidden),
            rng.normal(0, np.sqrt(1 / hidden), (hidden, classes)),
            np.zeros(classes),
        )

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Weights that `save` wrote."""
        with np.load(path) as stored:
            return cls(*(stored[name] for name in cls.__dataclass_fields__))

    def save(self, path: Path) -> None:
        """Write the weights, readable without pickle."""
        np.savez(path, **vars(self))

    def probabilities(self, features: Array) -> Array:
        """One row of class probabilities for each row of features."""
        return self._forward(features)[1]

    def train(
        self, features: Array, labels: npt.NDArray[np.int64], epochs: int, learning_rate: float, batch_size: int = 32
    ) -> Iterator[tuple[float, float]]:
        """Stochastic gradient descent; yields mean loss and accuracy on the training rows after each epoch."""
        rng = np.random.default_rng(seed=1)
        for _ in range(epochs):
            order = rng.permutation(len(labels))
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                self._step(features[rows], labels[rows], learning_rate)
            predicted = self.probabilities(features)
            loss = -np.log(predicted[np.arange(len(labels)), labels] + 1e-12).mean()
            yield float(loss), float((predicted.argmax(axis=1) == labels).mean())

    def _forward(self, features: Array) -> tuple[Array, Array]:
        activations = np.maximum(features @ self.hidden + self.hidden_bias, 0)
        scores = activations @ self.output + self.output_bias
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        return activations, exponents / exponents.sum(axis=1, keepdims=True)

    def _step(self, features: Array, labels: npt.NDArray[np.int64], learning_rate: float) -> None:
        activations, error = self._forward(features)
        error[np.arange(len(labels)), labels] -= 1
        error /= len(labels)
        hidden_error = (error @ self.output.T) * (activations > 0)
        self.output -= learning_rate * activations.T @ error
        self.output_bias -= learning_rate * error.sum(axis=0)
        self.hidden -= learning_rate * features.T @ hidden_error
        self.hidden_bias -= learning_rate * hidden_error.sum(axis=0)
