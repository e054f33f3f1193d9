"""Finds what no living process of this home owns on this machine, containers and what they leave, and removes it.

Owns no thread and no clock: `step` looks once, and whoever calls it says when.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from raymaker.actors.lease import Lease, LeaseHeld, abandoned_leases, is_held
from raymaker.actors.runtime.base import (
    LABEL_HOME,
    LABEL_KIND,
    LABEL_OWNER,
    ContainerHandle,
    ContainerRuntime,
    Leftovers,
)

logger = logging.getLogger(__name__)

Labels = Mapping[str, str]


class Reaper:
    """Looks at every step at what is there; remembers only since when a thing has had no owner.

    A training container is left alone for `reap_after_s`, so that its supervisor can come back and take it up. A
    scoring container is never taken up, so it goes at the second look. Where `keep` says so, one is never removed.
    `leftovers` (networks, shared memory, job folders) are as patiently left alone, and for as long as their owner
    has containers.
    """

    def __init__(
        self,
        runtimes: Sequence[ContainerRuntime],
        home: Path,
        reap_after_s: float,
        keep: Callable[[Labels], bool] | None = None,
        leftovers: Sequence[Leftovers] = (),
    ) -> None:
        self._runtimes = runtimes
        self._leftovers = leftovers
        self._home = home
        self._reap_after_s = reap_after_s
        self._keep = keep or (lambda _: False)
        self._unowned_since: dict[tuple[str, str], float] = {}
        self._away: set[str] = set()
        self.found_nothing = False
        """Whether the last step saw everything, and nothing of this home, with or without an owner."""

    def step(self, now: float) -> list[str]:
        """Look once, and return the names of what was removed. `now` is in seconds."""
        earlier, self._unowned_since = self._unowned_since, {}
        self.found_nothing = False
        removed, owners = [], set()
        for runtime in self._runtimes:
            for handle, labels in self._look(runtime, f"containers of the {runtime.name} driver"):
                if self._is_due(runtime, handle, labels, earlier, now) and self._remove(runtime, handle, labels):
                    removed.append(handle.name)
                else:
                    owners.add(_owner(handle, labels))
        if not self._away.isdisjoint(runtime.name for runtime in self._runtimes):
            return removed  # whose containers there are is not known
        leftover_count = 0
        for kind in self._leftovers:
            for handle, labels in self._look(kind, kind.name):
                leftover_count += 1
                is_due = self._is_due(kind, handle, labels, earlier, now) and _owner(handle, labels) not in owners
                if is_due and self._remove(kind, handle, labels):
                    removed.append(handle.name)
        self._collect_leases(owners)
        self.found_nothing = not (self._away or removed or owners or leftover_count)
        return removed

    def _look(self, source: Leftovers | ContainerRuntime, what: str) -> list[tuple[ContainerHandle, Labels]]:
        """List what of this home is there; nothing while the engine is away, which is told once."""
        try:
            found = source.owned({LABEL_HOME: str(self._home)})
        except Exception as error:
            if source.name not in self._away:
                logger.warning("%s cannot be listed for now: %s", what, error)
            self._away.add(source.name)
            return []
        self._away.discard(source.name)
        return found

    def _is_due(
        self,
        source: Leftovers | ContainerRuntime,
        handle: ContainerHandle,
        labels: Labels,
        earlier: Mapping[tuple[str, str], float],
        now: float,
    ) -> bool:
        """Tell whether nobody has owned it for long enough, and remember since when nobody does."""
        if is_held(self._home, _owner(handle, labels)) or self._keep(labels):
            return False
        key = (source.name, handle.id)
        since = self._unowned_since[key] = earlier.get(key, now)
        patience_s = 0.0 if labels.get(LABEL_KIND) == "scoring" else self._reap_after_s
        return key in earlier and now - since >= patience_s

    def _remove(self, source: Leftovers | ContainerRuntime, handle: ContainerHandle, labels: Labels) -> bool:
        """Remove it while holding its lease, so that nobody takes it up meanwhile."""
        try:
            with Lease.acquire(self._home, _owner(handle, labels)):
                source.remove(handle)
        except LeaseHeld:
            return False
        except Exception:
            logger.exception("removing %s failed; the next step tries again", handle.name)
            return False
        return True

    def _collect_leases(self, owners: set[str]) -> None:
        """Remove the files of leases whose holder died and whose containers are gone."""
        for name in abandoned_leases(self._home):
            if name not in owners:
                with contextlib.suppress(LeaseHeld):
                    Lease.acquire(self._home, name).release()


def _owner(handle: ContainerHandle, labels: Labels) -> str:
    """The lease of whoever it belongs to."""
    return labels.get(LABEL_OWNER, handle.name)
