"""The containers of one attempt on one machine: started together, remembered, watched, stopped and removed together.

Says what ended and how; what follows from that is `verdict.py`'s matter.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from raymaker.actors.errors import ContainerMissing, EngineAway
from raymaker.actors.runtime.base import ContainerHandle, ContainerRuntime, ExitStatus, Phase
from raymaker.actors.spec import ContainerSpec


class AttemptLost(Exception):
    """A container of the attempt was started and is gone: the attempt cannot be taken up, only a new one be made."""


class Containers:
    """An attempt's containers, by rank. `memory` is the file that names them to whoever takes the attempt up again."""

    def __init__(self, runtime: ContainerRuntime, memory: Path, on_end: Callable[[int, ExitStatus], None]) -> None:
        self._runtime = runtime
        self._memory = memory
        self._on_end = on_end
        self._changed = threading.Condition()
        self._ended: dict[int, ExitStatus] = {}
        self._lost: AttemptLost | None = None
        self.handles: dict[int, ContainerHandle] = {}

    def were_started(self, labels: Mapping[str, str], rank_label: str) -> bool:
        """Tell whether an earlier owner started any of them, even if it died right after."""
        if not self.handles and self._memory.exists():
            found = json.loads(self._memory.read_text())
            self.handles = {int(rank): ContainerHandle(**handle) for rank, handle in found.items()}
        if not self.handles:
            for handle, there in self._runtime.owned(labels):
                self.handles[int(there[rank_label])] = handle
        return bool(self.handles)

    def start(self, specs: Mapping[int, ContainerSpec]) -> None:
        """Start every container at once and watch them. Raises StartError, after which none of them runs."""
        with ThreadPoolExecutor(len(specs), "start") as threads:
            starts = {rank: threads.submit(self._runtime.start, spec) for rank, spec in specs.items()}
        self.handles = {rank: start.result() for rank, start in starts.items() if start.exception() is None}
        failed = next((error for start in starts.values() if (error := start.exception()) is not None), None)
        if failed is not None:
            self.remove()
            raise failed
        temporary = self._memory.with_suffix(".new")
        temporary.write_text(json.dumps({rank: asdict(handle) for rank, handle in self.handles.items()}))
        temporary.replace(self._memory)
        self._watch_all()

    def take_up(self, ranks: Sequence[int]) -> None:
        """Watch containers that an earlier owner started. Raises AttemptLost where not all of them are there."""
        for rank in ranks:
            handle = self.handles.get(rank)
            if handle is None or self._runtime.inspect(handle).phase is Phase.MISSING:
                raise AttemptLost(f"the container of rank {rank} is gone")
        self._watch_all()

    def started_at(self) -> float:
        """When the last of them started, in epoch seconds; an owner that died right after may not have noted it."""
        found = [self._runtime.inspect(handle).started_at for handle in self.handles.values()]
        if known := [moment for moment in found if moment is not None]:
            return max(known)
        return self._memory.stat().st_mtime if self._memory.exists() else time.time()

    def wait(self, timeout_s: float, known_count: int | None = None) -> Mapping[int, ExitStatus]:
        """Return how those ended that have ended, in that order, once that is another number than `known_count`.

        Without `known_count` once all have ended. Returns after `timeout_s` at the latest. Raises AttemptLost.
        """
        wanted = len(self.handles) if known_count is None else known_count + 1
        with self._changed:
            self._changed.wait_for(lambda: self._lost is not None or len(self._ended) >= wanted, timeout_s)
            if self._lost is not None:
                raise self._lost
            return dict(self._ended)

    def stop(self, grace_s: float) -> None:
        """SIGTERM, grace, SIGKILL, to all at once."""
        with ThreadPoolExecutor(max(1, len(self.handles)), "stop") as threads:
            list(threads.map(lambda handle: self._runtime.stop(handle, grace_s), self.handles.values()))

    def remove(self) -> None:
        """Kill and remove all of them. Removing twice does nothing."""
        with ThreadPoolExecutor(max(1, len(self.handles)), "remove") as threads:
            list(threads.map(self._runtime.remove, self.handles.values()))
        self._memory.unlink(missing_ok=True)

    def _watch_all(self) -> None:
        for rank, handle in self.handles.items():
            threading.Thread(target=self._watch, args=(rank, handle), name=f"rank-{rank}", daemon=True).start()

    def _watch(self, rank: int, handle: ContainerHandle) -> None:
        try:
            status = self._runtime.wait(handle)
        except (ContainerMissing, EngineAway) as error:
            self._lose(AttemptLost(f"The container of rank {rank} or its engine went away: {error}"))
            return
        except Exception as error:
            self._lose(AttemptLost(f"The container of rank {rank} could not be watched: {error!r}"))
            raise
        if status is not None:
            with self._changed:
                self._ended[rank] = status
                self._changed.notify_all()
            self._on_end(rank, status)

    def _lose(self, lost: AttemptLost) -> None:
        with self._changed:
            self._lost = self._lost or lost
            self._changed.notify_all()
