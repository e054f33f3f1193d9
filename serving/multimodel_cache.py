"""Which of an endpoint's many models are on this machine and in its container, and which of them goes first. Pure.

A model on disk may be loaded or not; one that requests use, or wait for, goes nowhere. Of the others the least recently
used one goes first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class CachedModel:
    """One model on disk."""

    name: str
    size_bytes: int
    is_loaded: bool = False


class ModelCache:
    """Books about models; what they say is done by whoever keeps them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._models: OrderedDict[str, CachedModel] = OrderedDict()
        """By their last use, the longest ago first."""
        self._uses: Counter[str] = Counter()
        self._size_bytes = 0

    def find(self, name: str) -> CachedModel | None:
        """Look a model up, None where it is not on disk."""
        return self._models.get(name)

    def add(self, name: str, size_bytes: int) -> CachedModel:
        """Note that a model was brought to disk."""
        self._models[name] = model = CachedModel(name, size_bytes)
        self._size_bytes += size_bytes
        return model

    def remove(self, model: CachedModel) -> None:
        """Note that a model is no longer on disk."""
        del self._models[model.name]
        self._size_bytes -= model.size_bytes

    def begin_use(self, name: str) -> None:
        """Note that a request is for this model, whether it is here yet or not: it is the most recently used one."""
        self._uses[name] += 1
        if name in self._models:
            self._models.move_to_end(name)

    def end_use(self, name: str) -> None:
        """Note that a request has ended."""
        self._uses[name] -= 1
        if not self._uses[name]:
            del self._uses[name]

    def find_unused(self, name: str) -> CachedModel | None:
        """Look up a model that is loaded for nobody, None where it is not so."""
        model = self._models.get(name)
        return model if model is not None and model.is_loaded and name not in self._uses else None

    def forget_loaded(self) -> None:
        """Note that the container holds nothing any more: there is a new one."""
        for model in self._models.values():
            model.is_loaded = False

    def next_to_unload(self) -> CachedModel | None:
        """Choose the model that makes room in the container, None where all that are loaded are used."""
        return next(
            (model for model in self._models.values() if model.is_loaded and model.name not in self._uses), None
        )

    def next_to_remove(self) -> CachedModel | None:
        """Choose the model that makes room on disk, None where there is room, or all are used."""
        if self._size_bytes <= self._limit_bytes:
            return None
        return next(self._unused(), None)

    def _unused(self) -> Iterator[CachedModel]:
        return (model for model in self._models.values() if model.name not in self._uses)
