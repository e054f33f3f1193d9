"""Finds the containers of this home on this machine that no living process owns, and removes them.

Owns no thread and no clock: `step` looks once, and whoever calls it says when. Job folders are not its matter.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from raymaker.actors.lease import Lease, LeaseHeld, abandoned_leases, is_held
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER, ContainerHandle, ContainerRuntime

logger = logging.getLogger(__name__)

Labels = Mapping[str, str]


class Reaper:
    """Looks at every step at what is there; remembers only since when a container has had no owner.

    A training container is left alone for `reap_after_s`, so that its supervisor can come back and take it up. A
    scoring container is never taken up, so it goes at the second look. Where `keep` says so, one is never removed.
    """

    def __init__(
        self,
        runtimes: Sequence[ContainerRuntime],
        home: Path,
        reap_after_s: float,
        keep: Callable[[Labels], bool] | None = None,
    ) -> None:
        self._runtimes = runtimes
        self._home = home
        self._reap_after_s = reap_after_s
        self._keep = keep or (lambda _: False)
        self._unowned_since: dict[tuple[str, str], float] = {}
        self._away: set[str] = set()

    def step(self, now: float) -> list[str]:
        """Look once, and return the names of the containers that were removed. `now` is in seconds."""
        removed, unowned, owners = [], {}, set()
        for runtime in self._runtimes:
            for handle, labels in self._look(runtime):
                key, owner = (runtime.name, handle.id), labels.get(LABEL_OWNER, handle.name)
                owners.add(owner)
                if is_held(self._home, owner) or self._keep(labels):
                    continue
                since = self._unowned_since.get(key)
                is_due = since is not None and now - since >= self._patience_s(labels)
                if is_due and self._remove(runtime, handle, owner):
                    removed.append(handle.name)
                else:
                    unowned[key] = now if since is None else since
        self._unowned_since = unowned
        if not self._away:
            self._collect_leases(owners)
        return removed

    def _look(self, runtime: ContainerRuntime) -> list[tuple[ContainerHandle, Labels]]:
        """List this home's containers; none while the engine is away, which is told once."""
        try:
            found = runtime.owned({LABEL_HOME: str(self._home)})
        except Exception as error:
            if runtime.name not in self._away:
                logger.warning("containers of the %s driver cannot be listed for now: %s", runtime.name, error)
            self._away.add(runtime.name)
            return []
        self._away.discard(runtime.name)
        return found

    def _patience_s(self, labels: Labels) -> float:
        return 0.0 if labels.get(LABEL_KIND) == "scoring" else self._reap_after_s

    def _remove(self, runtime: ContainerRuntime, handle: ContainerHandle, owner: str) -> bool:
        """Remove a container while holding its lease, so that nobody takes it up meanwhile."""
        try:
            with Lease.acquire(self._home, owner):
                runtime.remove(handle)
        except LeaseHeld:
            return False
        except Exception:
            logger.exception("removing container %s failed; the next step tries again", handle.name)
            return False
        return True

    def _collect_leases(self, owners: set[str]) -> None:
        """Remove the files of leases whose holder died and whose containers are gone."""
        for name in abandoned_leases(self._home):
            if name not in owners:
                with contextlib.suppress(LeaseHeld):
                    Lease.acquire(self._home, name).release()
