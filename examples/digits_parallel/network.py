"""A classifier with one hidden layer, in numpy. Its weights are one vector, which containers exchange as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Network:
    """`softmax(relu(rows @ hidden + hidden_bias) @ output + output_bias)`; the four are views into `weights`."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        self.sizes = (features, hidden, classes)
        self.weights = np.zeros((features + 1) * hidden + (hidden + 1) * classes)
        self.hidden, self.hidden_bias, self.output, self.output_bias = self._layers(self.weights)

    @classmethod
    def random(cls, features: int, hidden: int, classes: int, seed: int) -> Network:
        """A network to start from; the same seed gives the same one everywhere."""
        made, rng = cls(features, hidden, classes), np.random.default_rng(seed)
        made.hidden[:] = rng.normal(0, np.sqrt(2 / features), made.hidden.shape)
        made.output[:] = rng.normal(0, np.sqrt(1 / hidden), made.output.shape)
        return made

    @classmethod
    def load(cls, path: Path) -> Network:
        """The network that `save` wrote."""
        with np.load(path) as stored:
            made = cls(*stored["sizes"].tolist())
            made.weights[:] = stored["weights"]
        return made

    def save(self, path: Path) -> None:
        """Write the network, readable without pickle."""
        np.savez(path, sizes=self.sizes, weights=self.weights)

    def probabilities(self, rows: Array) -> Array:
        """One row of class probabilities for each row of features."""
        return self._forward(rows)[1]

    def gradient(self, rows: Array, labels: npt.NDArray[np.int64], into: Array) -> tuple[float, int]:
        """Write the gradient of the loss, summed over these rows, to `into`; return that loss and the right count."""
        activations, probabilities = self._forward(rows)
        ours = np.arange(len(labels)), labels
        loss = -np.log(probabilities[ours] + 1e-12).sum()
        right = (probabilities.argmax(axis=1) == labels).sum()
        error = probabilities
        error[ours] -= 1
        hidden_error = (error @ self.output.T) * (activations > 0)
        hidden, hidden_bias, output, output_bias = self._layers(into)
        np.matmul(rows.T, hidden_error, out=hidden)
        np.sum(hidden_error, axis=0, out=hidden_bias)
        np.matmul(activations.T, error, out=output)
        np.sum(error, axis=0, out=output_bias)
        return float(loss), int(right)

    def _forward(self, rows: Array) -> tuple[Array, Array]:
        activations = np.maximum(rows @ self.hidden + self.hidden_bias, 0)
        scores = activations @ self.output + self.output_bias
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        return activations, exponents / exponents.sum(axis=1, keepdims=True)

    def _layers(self, vector: Array) -> tuple[Array, Array, Array, Array]:
        features, hidden, classes = self.sizes
        ends = np.cumsum([features * hidden, hidden, hidden * classes])
        first, first_bias, second, second_bias = np.split(vector, ends)
        return first.reshape(features, hidden), first_bias, second.reshape(hidden, classes), second_bias
