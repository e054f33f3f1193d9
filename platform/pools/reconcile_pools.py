"""Makes the machines follow the records of warm pools: kept, handed to jobs that match, let go of.

Level-triggered as the reconciler whose part this is: machines that die, and times that are over, are seen at each step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

from raymaker.actors.spec import InstanceType
from raymaker.platform.database import training
from raymaker.platform.database.engine import Database
from raymaker.platform.placing import Derived, logged
from raymaker.platform.pools import keeping
from raymaker.platform.pools.matching import match_key
from raymaker.platform.pools.warm_pool import KeptFor
from raymaker.platform.records import TrainingJobRecord
from raymaker.platform.room import Holding
from raymaker.platform.settings import Settings
from raymaker.platform.specs import instance_counts


class PoolFleet(Protocol):
    """What is asked of the machines of the cluster."""

    def keep_pools(self, pools: Mapping[str, KeptFor]) -> Mapping[str, bool]:
        """Let go of the machines of all warm pools but these, by id.

        Returns the ids of those that have a machine, and whether that has nothing to run.
        """


class PoolReconciler:
    """Steps over all warm pools that are live. One step at a time, by one process."""

    def __init__(
        self, database: Database, fleet: PoolFleet, settings: Settings, catalogue: Mapping[str, InstanceType]
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._settings = settings
        self._catalogue = catalogue
        self._live: dict[str, TrainingJobRecord] = {}
        """The jobs whose pools are live, as they were read last."""
        self._kept: list[TrainingJobRecord] = []
        """Those among them of which something is kept that nobody has taken over."""
        self._keys: Derived[TrainingJobRecord, tuple[TrainingJobRecord, tuple[object, ...]]] = Derived(
            lambda job: (job, match_key(job, settings))
        )

    def step(self, jobs: Sequence[TrainingJobRecord], now: float) -> list[TrainingJobRecord]:
        """End the pools that are over, and begin the jobs that match one. Returns the jobs as they are then.

        Who takes a pool over takes room from nobody: it is no matter whose turn it is.
        """
        live = training.live_warm_pools(self._database, self._live)
        self._live = {job.name: job for job in live}
        live = [job for job in live if not self._has_expired(job, now)]
        pools = {it.warm_pool.pool_id: KeptFor(it.name, keeping.kept_until(it)) for it in live if it.warm_pool}
        there = self._fleet.keep_pools(pools)
        kept = [job for job in live if keeping.kept_until(job) is not None]
        self._kept = [job for job in kept if is_gang(job) or not self._is_lost(job, there, now)]
        free = [job for job in self._kept if is_gang(job) or (job.warm_pool and there[job.warm_pool.pool_id])]
        begun = self._begin(free, jobs, now) if free else {}
        return [begun.get(job.name, job) for job in jobs]

    def holdings(self) -> dict[str, Holding]:
        """What is kept, and until when at most: it counts as its account's. A gang's room is not kept."""
        found = {}
        for job in self._kept:
            until = keeping.kept_until(job)
            kind = self._catalogue.get(job.request["ResourceConfig"]["InstanceType"])
            if until is not None and kind is not None and not is_gang(job):
                found[f"what is kept of {job.name}"] = Holding(job.account, kind.resources, until, is_kept_warm=True)
        return found

    def _has_expired(self, job: TrainingJobRecord, now: float) -> bool:
        """Tell whether the time of a pool is over, and write that down."""
        until = keeping.kept_until(job)
        return until is not None and now >= until and self._is_over(job, partial(keeping.expire, now=now))

    def _is_lost(self, job: TrainingJobRecord, there: Collection[str], now: float) -> bool:
        """Tell whether the machine of a pool is gone, and write that down."""
        is_there = job.warm_pool is not None and job.warm_pool.pool_id in there
        return not is_there and self._is_over(job, partial(keeping.lose, now=now))

    def _is_over(self, job: TrainingJobRecord, end: Callable[[TrainingJobRecord], TrainingJobRecord]) -> bool:
        """End a job's pool, and tell whether it is over: it may have been made longer meanwhile."""
        with logged(f"the warm pool of {job.name}"):
            return keeping.kept_until(training.change_training_job(self._database, job.name, end)) is None
        return True

    def _begin(
        self, free: Sequence[TrainingJobRecord], jobs: Sequence[TrainingJobRecord], now: float
    ) -> dict[str, TrainingJobRecord]:
        """Begin those that wait and match one of which something is kept, that of the oldest job first."""
        matching: dict[tuple[object, ...], list[TrainingJobRecord]] = defaultdict(list)
        for kept in free:
            matching[match_key(kept, self._settings)].append(kept)
        begun = {}
        for job, key in self._keys.of(job for job in jobs if job.is_waiting):
            if not (fitting := matching.get(key)):
                continue
            kept = fitting.pop(0)
            with logged(f"training job {job.name}"):
                begun[job.name] = training.start_on_pool(self._database, job.name, kept.name, now)
                self._kept.remove(kept)
        return begun


def is_gang(job: TrainingJobRecord) -> bool:
    """Whether a job runs on several machines, which Ray Train holds only while it runs."""
    return instance_counts(job.request["ResourceConfig"])[1] > 1
