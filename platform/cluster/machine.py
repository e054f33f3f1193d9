"""A machine as an actor: a process on a node that waits, and runs one attempt at a job after another.

A module of its own, so that its process imports neither Serve nor the control plane, and all that a job needs before
the first one comes.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass

import ray
from ray.util import get_current_placement_group

from raymaker.actors.errors import WorkError
from raymaker.actors.readiness import get_ready
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.runtime.standby import Standbys
from raymaker.actors.s3_files import load_boto3
from raymaker.actors.site import Site, machine_id
from raymaker.actors.spec import TrainingSpec
from raymaker.actors.supervisor import Supervisor
from raymaker.platform.cluster.reporter import ControlReporter

logger = logging.getLogger(__name__)

RETIRE_S = 60.0

Attempt = tuple[str, int]


@dataclass(frozen=True)
class Occupation:
    """What a machine tells of itself: its node's id, its process, what it runs, how many attempts it has run before.

    One that is not kept lives in its attempt's reservation, and ends with that. `pool_id` is the warm pool of the
    attempt that it runs, or ran last.
    """

    node_id: str
    pid: int
    attempt: Attempt | None
    run_count: int
    is_kept: bool
    pool_id: str | None = None


class Machine:
    """Runs attempts at jobs on one machine each, one at a time. It names its node, which fences an attempt that moved.

    What an attempt leaves behind is the supervisor's to remove; nothing of it stays in this process.
    """

    def __init__(self, site: Site) -> None:
        load_boto3()
        self._self = ray.get_runtime_context().current_actor
        self._is_kept = get_current_placement_group() is None
        self._site = site
        self._reporter = ControlReporter()
        self._runtime: ContainerRuntime | None = None
        self._supervisor: Supervisor | None = None
        self._running: list[Supervisor] = []
        """Of attempts that are not over in every respect: the last, and perhaps some before that still clean up."""
        self._attempt: Attempt | None = None
        self._run_count = 0
        self._pool_id: str | None = None
        self._standbys = Standbys(site.home, site.standby_count) if site.standby_count else None
        self._lock = threading.Lock()

    def occupation(self) -> Occupation:
        """Tell of this machine; an answer means that it is ready."""
        node_id = ray.get_runtime_context().get_node_id()
        return Occupation(node_id, os.getpid(), self._attempt, self._run_count, self._is_kept, self._pool_id)

    def run(self, spec: TrainingSpec) -> None:
        """Run an attempt, and return once it has ended and has been reported. Raises StartError without a driver.

        What it leaves is removed while the next one runs.
        """
        attempt = (spec.job_name, spec.attempt)
        self.wait()
        with self._lock:
            if self._attempt is not None:
                raise RuntimeError(f"this machine runs {self._attempt}, and cannot take {attempt} too")
            runtime = self._select_runtime()
            self._attempt, self._pool_id = attempt, spec.warm_pool
            self._supervisor = Supervisor(spec, self._site, runtime, self._reporter, machine_id())
            self._running = [*(each for each in self._running if not each.wait(0)), self._supervisor]
        self.wait()
        if self._standbys is not None:
            threading.Thread(target=self._standbys.replenish, name="standbys", daemon=True).start()

    def expect(self, likely: TrainingSpec) -> None:
        """Get ready for an attempt like one that another machine has run. What cannot be had ready is left."""
        try:
            with self._lock:
                runtime = self._select_runtime()
            get_ready(likely, self._site, runtime, self._standbys)
        except WorkError as error:
            logger.warning("could not get ready for an attempt like that of %s: %s", likely.job_name, error)

    def wait(self) -> None:
        """Return once what runs here has ended and has been reported."""
        with self._lock:
            attempt, supervisor = self._attempt, self._supervisor
        if supervisor is None or attempt is None:
            return
        supervisor.wait_settled() if self._is_kept else supervisor.wait()
        with self._lock:
            if self._attempt == attempt:
                self._attempt, self._supervisor = None, None
                self._run_count += 1

    def retire(self) -> None:
        """End this process, once what attempts have left is removed."""
        for supervisor in self._running:
            supervisor.wait(RETIRE_S)
        if self._standbys is not None:
            self._standbys.close()
        ray.kill(self._self, no_restart=True)

    def stop(self, attempt: Attempt) -> None:
        """Ask an attempt to stop, where it still runs here."""
        if (supervisor := self._supervisor_of(attempt)) is not None:
            supervisor.stop()

    def update(self, attempt: Attempt, revision: int) -> None:
        """Ask an attempt to look at a change of its job, where it still runs here."""
        if (supervisor := self._supervisor_of(attempt)) is not None:
            supervisor.update(revision)

    def _supervisor_of(self, attempt: Attempt) -> Supervisor | None:
        with self._lock:
            return self._supervisor if self._attempt == attempt else None

    def _select_runtime(self) -> ContainerRuntime:
        """The driver; a docker driver is kept, since it bears with an engine that restarts."""
        if not isinstance(self._runtime, DockerRuntime):
            self._runtime = select_runtime(self._site.driver, self._site.home, self._standbys)
        return self._runtime
