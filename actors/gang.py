"""A training job on several machines: a gang on Ray Train, whose workers are the instances.

Ray Train places the workers, notices those that die, starts the gang again within FailureConfig's limits, and lets an
elastic one shrink and grow. Each such start of all workers is one `TrainingSpec.start`. What a worker does stands in
`gang_worker.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import train
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymaker.actors.attempt import make_report, report_failure
from raymaker.actors.board import Board
from raymaker.actors.exchange.across import start_coordinator
from raymaker.actors.gang_claims import claim_as, withdraw
from raymaker.actors.gang_room import give_back_own, marked_bytes
from raymaker.actors.gang_worker import run_machine
from raymaker.actors.prefetch import prefetch
from raymaker.actors.reports import JobReporter, Outcome, ReportRefused
from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.site import Site
from raymaker.actors.spec import TrainingSpec

logger = logging.getLogger(__name__)

HEALTH_CHECK_S = "0.5"
"""How often Ray Train looks whether its workers live; it looks every 2 s by itself."""
RESIZE_LOOK_S = 15.0
"""How often an elastic gang looks whether there is room for more machines."""
ELASTIC_WAIT_S = "20"
"""How long an elastic gang waits for machines that it believes to be there, before it looks again."""
STOP_UNPLACED_S = 10.0
"""How long a gang that was asked to stop may hear of no machine, which could do so, before it is given up."""

Attempt = tuple[str, int]


class Gang:
    """Supervises one attempt of a gang. Its machines reach it as `actor`, the actor that has this object."""

    _spec: TrainingSpec
    _max_failures: int
    """How often its machines may fail from now on; negative: any number of times."""

    def __init__(self, site: Site, reporter: JobReporter, actor: Any) -> None:
        self._site = site
        self._reporter = reporter
        self._actor = actor
        self._ended = threading.Event()
        self._stopping = False
        self._board = Board()
        self._making = threading.Lock()
        self._coordinator: tuple[tuple[int, int], Any] | None = None
        self._claims: list[Attempt] = []

    def run(self, spec: TrainingSpec) -> None:
        """Begin to supervise an attempt, the only one that this object ever has."""
        self._spec = spec
        self._max_failures = spec.max_failures
        threading.Thread(target=self._run, name=f"job-{spec.job_name}", daemon=True).start()

    def attempt(self) -> int:
        """Return the attempt's number; an answer means that the supervisor lives."""
        return self._spec.attempt

    def placed(self) -> bool:
        """Block until the gang has its machines, or has ended without; True where it has them."""
        while not self._board.begun.wait(0.5):
            if self._ended.is_set():
                return False
        return True

    def update(self, revision: int) -> None:
        """Ask for a change of the job, which the platform tells of. Asking twice is fine."""
        self._board.want(revision)

    def stop(self) -> None:
        """Ask the job to stop. Asking twice is fine."""
        self._board.request_stop()
        with self._making:
            if self._stopping:
                return
            self._stopping = True
        threading.Thread(target=self._give_up_unplaced, daemon=True).start()

    def leave(self) -> None:
        """Give up what is claimed of the cluster, once the attempt has ended."""
        self.wait()
        for claimant in self._claims:
            withdraw(claimant)
            shutil.rmtree(self._folder(claimant), ignore_errors=True)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the attempt has ended and been reported; False where `timeout_s` passed first."""
        return self._ended.wait(timeout_s)

    def begin(self, start: int, machine_count: int) -> None:
        """Hear that the machines of a start are there (see `Board`)."""
        self._board.begin(start, machine_count)

    def gather(self, start: int, name: str, machine_index: int, mine: Any) -> Sequence[Any] | None:
        """Collect what every machine brings (see `Board`)."""
        return self._board.gather(start, name, machine_index, mine)

    def offer(self, start: int, name: str, machine_index: int, mine: Any) -> Mapping[int, Any]:
        """Collect what every machine brings, one by one (see `Board`)."""
        return self._board.offer(start, name, machine_index, mine)

    def has_come(self, start: int, name: str) -> bool:
        """Tell whether any machine has come there (see `Board`)."""
        return self._board.has_come(start, name)

    def raise_alarm(self, start: int) -> None:
        """Hear that a container ended badly (see `Board`)."""
        self._board.raise_alarm(start)

    def wanted_revision(self) -> int:
        """Tell a machine which change to look at (see `Board`)."""
        return self._board.wanted_revision

    def state(self, start: int) -> tuple[bool, bool]:
        """Tell a machine whether to stop, and whether another is in trouble (see `Board`)."""
        return self._board.state(start)

    def coordinator(self, start: int, number: int = 0) -> Any:
        """Return the actor through which a start's machines exchange weights; the first to ask has it made.

        Containers in place of others, `number` of the change that made them, have another than those before.
        """
        with self._making:
            if self._coordinator is None or self._coordinator[0] < (start, number):
                self._coordinator = (
                    (start, number),
                    start_coordinator(self._board.machine_count, self._spec.containers_per_instance),
                )
            return self._coordinator[1]

    def has_data(self) -> bool:
        """Tell whether every machine has its data, or none needs it any more."""
        return self._ended.is_set() or self._board.has_gathered("data")

    def _run(self) -> None:
        try:
            give_back_own(self._attempt)
            self._train()
        except ReportRefused as refusal:
            logger.warning("attempt %d of %s is fenced: %s", self._spec.attempt, self._spec.job_name, refusal)
        finally:
            self._ended.set()

    def _train(self) -> None:
        """Run the gang to its end; what its machines could not report themselves is reported here."""
        try:
            self._fit()
        except train.TrainingFailedError as error:
            self._report_failure(explain(error))
        except Exception as error:
            logger.exception("supervising %s failed", self._spec.job_name)
            self._report_failure(f"InternalServerError: {error!r}")

    def _fit(self) -> None:
        """Have Ray Train form the gang, and run it through all its starts. Raises TrainingFailedError."""
        self._warm_up_nodes()
        spec, needed = self._spec, self._spec.instance_type.resources
        if spec.min_instance_count is not None:
            os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", ELASTIC_WAIT_S)
        memory = marked_bytes(needed.memory_bytes, self._attempt)
        wanted = {"CPU": needed.cpus, "GPU": needed.gpus, "memory": memory}
        scaling = ScalingConfig(
            num_workers=spec.instance_count
            if spec.min_instance_count is None
            else (spec.min_instance_count, spec.instance_count),
            use_gpu=needed.gpus > 0,
            resources_per_worker={kind: amount for kind, amount in wanted.items() if amount},
            placement_strategy=spec.placement.value.upper(),
            elastic_resize_monitor_interval_s=RESIZE_LOOK_S,
        )
        self._fit_trainer(self._attempt, {"spec": spec}, scaling, self._max_failures)

    def _fit_trainer(self, claimant: Attempt, config: Mapping[str, Any], scaling: ScalingConfig, most: int) -> None:
        """Have Ray Train run machines that fail `most` times at most, to their end. Raises TrainingFailedError."""
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", HEALTH_CHECK_S)
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
        folder = self._folder(claimant)
        trainer = DataParallelTrainer(
            run_machine,
            train_loop_config={
                "site": self._site,
                "reporter": self._reporter,
                "supervisor": self._actor,
                **config,
            },
            scaling_config=scaling,
            run_config=RunConfig(  # type: ignore[arg-type]  # what Ray's own annotation means when Train is V2
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=FailureConfig(max_failures=most),
            ),
        )
        claim_as(claimant, trainer)
        self._claims.append(claimant)
        trainer.fit()

    def _folder(self, claimant: Attempt) -> Path:
        """Where Ray Train keeps what it knows of a run; none of it is needed afterwards."""
        job_name, attempt = claimant
        return self._site.home / "ray-train" / f"{job_name}-{attempt}"

    @property
    def _attempt(self) -> Attempt:
        return self._spec.job_name, self._spec.attempt

    def _warm_up_nodes(self) -> None:
        """Have images pulled and whole channels fetched while the gang forms, on the nodes where it may come to be."""
        fetch = ray.remote(num_cpus=0, max_retries=0)(_prefetch)
        for node in candidates(ray.nodes(), self._spec):
            place = NodeAffinitySchedulingStrategy(node, soft=False)
            fetch.options(scheduling_strategy=place).remote(self._spec, self._site, self._actor)

    def _give_up_unplaced(self) -> None:
        """End a gang that is to stop and has no machines, or lost them, which could do so themselves."""
        asked_at = time.monotonic()
        while min(self._board.silent_s(), time.monotonic() - asked_at) < STOP_UNPLACED_S:
            if self._ended.wait(1.0):
                return
        message = "Training job stopped while it had no machines"
        with contextlib.suppress(ReportRefused):
            self._reporter.report(make_report(self._last_start(message), "Stopped", message, outcome=Outcome.STOPPED))
        self._ended.set()

    def _report_failure(self, reason: str) -> None:
        report_failure(self._reporter, self._last_start("The gang could not be started"), reason)

    def _last_start(self, message: str) -> TrainingSpec:
        """Speak for the start that ran last; where none was begun, for one that begins here."""
        spec = self._spec
        if not self._board.latest_start:
            return self._reporter.begin_start(spec.job_name, spec.attempt, message).spec
        return dataclasses.replace(spec, start=self._board.latest_start)


def explain(error: Exception) -> str:
    """Say why the gang was not started once more, in the words of its machine that failed first."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        said = str(failure)
        if "AlgorithmError: " in said:
            return said[said.index("AlgorithmError: ") :]
    said = "; ".join(f"machine {index + 1}: {str(failure).strip()}" for index, failure in sorted(failures.items()))
    return f"InternalServerError: the job's machines were lost too often: {said or error}"


def candidates(nodes: Sequence[Mapping[str, Any]], spec: TrainingSpec) -> list[str]:
    """Name the nodes that could hold an instance, the largest first, and no more than twice the job's instances."""
    needed = spec.instance_type.resources
    fitting = [
        (node["Resources"].get("CPU", 0.0), node["NodeID"])
        for node in nodes
        if node["Alive"]
        and node["Resources"].get("CPU", 0.0) >= needed.cpus
        and node["Resources"].get("GPU", 0.0) >= needed.gpus
        and node["Resources"].get("memory", 0.0) >= needed.memory_bytes
    ]
    return [name for _, name in sorted(fitting, reverse=True)[: 2 * spec.instance_count]]


def _prefetch(spec: TrainingSpec, site: Site, supervisor: Any) -> None:
    def is_over() -> bool:
        return bool(ray.get(supervisor.has_data.remote()))

    prefetch(spec, site, select_runtime(site.driver, site.home), is_over)
