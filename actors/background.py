"""Work that goes on in a thread of its own for as long as a block lasts."""

from __future__ import annotations

import abc
import threading
from types import TracebackType
from typing import Self

LAST_WORDS_S = 30.0
"""How long the end of the block waits for the thread's."""


class Background(abc.ABC):
    """Begins with its block, and is to end soon once `_over` is set."""

    def __init__(self, name: str) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(LAST_WORDS_S)

    @abc.abstractmethod
    def _run(self) -> None:
        """Work until `_over` is set."""
