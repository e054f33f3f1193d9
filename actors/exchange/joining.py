"""The other machines of a job while they are being joined: seam.Across from the first moment, so that nobody waits.

Engines take up to seconds to find each other. What is asked of the others meanwhile waits until they are there; that
they do not come is a failure like any other.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable

from raymaker.actors.exchange.seam import CLOSED, Across, Call, ExchangeError, Failure, Value, Values

logger = logging.getLogger(__name__)


class JoiningAcross:
    """An Across that `join` makes, in a thread of its own. `join` may raise ExchangeError."""

    def __init__(self, join: Callable[[], Across]) -> None:
        self.values: Values = _JoiningValues(self)
        self._changed = threading.Condition()
        self._across: Across | None = None
        self._failure: Failure | None = None
        self._is_closed = False
        self._on_failure: Callable[[Failure], None] | None = None
        threading.Thread(target=self._join, args=(join,), name="exchange-joining", daemon=True).start()

    def joined(self) -> Across:
        """Wait for the others. Raises ExchangeError where they do not come, or this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._across is not None or self._failure is not None)
            if self._across is None:
                raise ExchangeError(self._failure or CLOSED)
            return self._across

    def agree(self, call: Call) -> None:
        """See that every machine makes this call next."""
        self.joined().agree(call)

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        """Combine `data` with the other machines' in place."""
        self.joined().all_reduce(data, dtype, operation)

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        """Copy the root machine's bytes to `data` of every other machine."""
        self.joined().broadcast(data, root_machine)

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        """Collect every machine's bytes, in machine order."""
        self.joined().all_gather(data, into)

    def barrier(self) -> None:
        """Wait until every machine is here."""
        self.joined().barrier()

    def fail(self, failure: Failure) -> None:
        """Tell the other machines that no rank can go on."""
        self.joined().fail(failure)

    def watch(self, on_failure: Callable[[Failure], None]) -> None:
        """Have `on_failure` called, once and from another thread, with the first failure, that to come included."""
        with self._changed:
            self._on_failure = on_failure
            across, failure = self._across, self._failure
        if across is not None:
            across.watch(on_failure)
        elif failure is not None and not self._is_closed:
            threading.Thread(target=on_failure, args=(failure,), daemon=True).start()

    def close(self) -> None:
        """Let go of the other machines; who waits for them gets ExchangeError. Closing twice does nothing."""
        with self._changed:
            self._is_closed = True
            self._failure = self._failure or CLOSED
            across = self._across
            self._changed.notify_all()
        if across is not None:
            across.close()

    def _join(self, join: Callable[[], Across]) -> None:
        try:
            across = join()
        except ExchangeError as error:
            self._fail(dataclasses.replace(error.failure, lost=True))
        except Exception as error:  # a thread's end would leave all waiting; they learn the reason instead
            logger.exception("exchange: the machines could not be joined")
            self._fail(Failure(f"the job's machines could not be joined: {error!r}", lost=True))
        else:
            self._settle(across)

    def _settle(self, across: Across) -> None:
        with self._changed:
            is_closed, on_failure = self._is_closed, self._on_failure
            if not is_closed:
                self._across = across
            self._changed.notify_all()
        if is_closed:
            across.close()
        elif on_failure is not None:
            across.watch(on_failure)

    def _fail(self, failure: Failure) -> None:
        with self._changed:
            is_news = self._failure is None
            self._failure = self._failure or failure
            on_failure = self._on_failure
            self._changed.notify_all()
        if is_news and on_failure is not None:
            on_failure(failure)


class _JoiningValues:
    """seam.Values of machines that may not have come yet."""

    def __init__(self, machines: JoiningAcross) -> None:
        self._machines = machines

    def put(self, name: str, content: bytes, content_type: str) -> int:
        """Replace a value; returns its new version."""
        return self._machines.joined().values.put(name, content, content_type)

    def add(self, name: str, content: bytes, dtype: str) -> int:
        """Add an array to a value element by element; returns its new version."""
        return self._machines.joined().values.add(name, content, dtype)

    def get(self, name: str, after_version: int = 0, wait_s: float = 0.0) -> Value | None:
        """Read a newer value, waiting up to `wait_s` for it once the machines are there."""
        return self._machines.joined().values.get(name, after_version, wait_s)
