"""The steps of one machine of a transform job: which objects, which container, within which limits; what is told."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymaker.actors.algorithm import prepare_algorithm
from raymaker.actors.channels.file import find_objects
from raymaker.actors.errors import WorkError
from raymaker.actors.lease import Lease
from raymaker.actors.reports import Outcome
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER, ContainerRuntime, LogLine
from raymaker.actors.scoring import Address, ScoringContainer, fetch_model
from raymaker.actors.site import Site
from raymaker.actors.spec import ChannelSpec, host_name
from raymaker.actors.storage import ObjectStore
from raymaker.serving.transform.limits import (
    ExecutionParameters,
    environment,
    read_execution_parameters,
    settle,
)
from raymaker.serving.transform.plan import Task, plan_tasks
from raymaker.serving.transform.reports import Phase, TransformReport, TransformReporter
from raymaker.serving.transform.session import Session
from raymaker.serving.transform.spec import MIB, TransformSpec
from raymaker.serving.transform.tally import Tally

LOG_GROUP = "/aws/sagemaker/TransformJobs"
LABEL_JOB = "raymaker.transform-job"
OLDER_LEASE_TIMEOUT_S = 30.0
PARAMETERS_TIMEOUT_S = 10.0


class Stopped(Exception):
    """The job was asked to stop before it began to transform."""


class Attempt:
    """One attempt on one machine. `name` is its lease, which whoever runs it holds; `folder` is its own."""

    def __init__(
        self,
        spec: TransformSpec,
        site: Site,
        runtime: ContainerRuntime,
        reporter: TransformReporter,
        *,
        name: str,
        folder: Path,
    ) -> None:
        self._spec = spec
        self._site = site
        self._runtime = runtime
        self._reporter = reporter
        self._name = name
        self._folder = folder
        self._store = ObjectStore(site.store)
        self._tally = Tally(0)
        self._stop_requested = False
        self._starting: ScoringContainer | None = None

    def request_stop(self) -> None:
        """Have the attempt end soon, also while its container starts."""
        self._stop_requested = True
        if (container := self._starting) is not None:
            container.stop()

    def run(self) -> Outcome:
        """Transform what is not through yet. Raises WorkError, ReportRefused; LeaseHeld where an older one lives on."""
        try:
            self.report(Phase.STARTING, "Preparing the instance for the transform job")
            self._remove_older()
            ledger = self._reporter.begin_transform(self._spec.job_name, self._spec.attempt)
            tasks = self._plan()
            known = [ledger.finished[task.name] for task in tasks if task.name in ledger.finished]
            self._tally = Tally(len(tasks), known)
            left = [task for task in tasks if task.name not in ledger.finished]
            if not left:
                return Outcome.COMPLETED
            container = self._prepare()
            began_at = ledger.started_at or time.time()
            return self._transform(left, container, began_at + self._spec.max_runtime_s)
        except Stopped:
            return Outcome.STOPPED

    def report(self, phase: Phase, message: str, **facts: Any) -> None:
        """Tell where this machine is; durable when it returns. Raises ReportRefused."""
        spec, tally = self._spec, self._tally
        progress, finished = tally.progress, tally.take_unreported()
        self._reporter.report_transform(
            TransformReport(
                spec.job_name,
                spec.attempt,
                spec.machine_index,
                phase,
                message,
                time.time(),
                progress,
                finished,
                **facts,
            )
        )

    def _remove_older(self) -> None:
        """Remove the containers that earlier owners of this job left on this machine, once nobody owns them."""
        for handle, labels in self._runtime.owned({LABEL_HOME: str(self._site.home), LABEL_JOB: self._spec.job_name}):
            if labels[LABEL_OWNER] == self._name:
                self._runtime.remove(handle)
            elif not labels[LABEL_OWNER].startswith(f"transform-{self._spec.job_name}-{self._spec.attempt}-"):
                with Lease.acquire(self._site.home, labels[LABEL_OWNER], OLDER_LEASE_TIMEOUT_S):
                    self._runtime.remove(handle)

    def _plan(self) -> list[Task]:
        """Find this machine's objects, and see that their outputs can be written."""
        source = ChannelSpec("input", self._spec.input.uri, self._spec.input.data_type)
        tasks = plan_tasks(find_objects(self._store, source), self._spec)
        self._store.check_writable(self._spec.output.uri)
        return tasks

    def _prepare(self) -> ScoringContainer:
        """Bring image and model to this machine."""
        scoring = self._spec.scoring
        algorithm = prepare_algorithm(
            self._runtime, self._store, self._site, image=scoring.image, source=scoring.source
        )
        self._check_stop()
        fetch_model(self._store, scoring, self._folder / "model")
        self._check_stop()
        told = {**scoring.environment, **environment(self._spec)}
        return ScoringContainer(
            self._runtime,
            algorithm,
            dataclasses.replace(scoring, environment=told),
            name=f"raymaker-{self._site.tag}-{self._name}",
            folder=self._folder / "model",
            labels={
                LABEL_KIND: "scoring",
                LABEL_OWNER: self._name,
                LABEL_HOME: str(self._site.home),
                LABEL_JOB: self._spec.job_name,
            },
            on_log=self._log,
        )

    def _transform(self, tasks: Sequence[Task], container: ScoringContainer, deadline: float) -> Outcome:
        address = self._start(container)
        try:
            limits = settle(self._spec, self._ask_parameters(address))
            self._note("Limits", limits.describe())
            self._report_progress()
            session = Session(
                self._spec,
                self._store,
                container,
                limits=limits,
                folder=self._folder / "spool",
                tally=self._tally,
                note=self._note,
                report=self._report_progress,
                is_stop_requested=lambda: self._stop_requested,
            )
            return asyncio.run(session.run(tasks, address, deadline))
        finally:
            container.remove()

    def _start(self, container: ScoringContainer) -> Address:
        self._starting = container
        try:
            self._check_stop()
            return container.start()
        except WorkError:
            self._check_stop()
            raise
        finally:
            self._starting = None

    def _ask_parameters(self, address: Address) -> ExecutionParameters:
        """Ask the container what it can take, and note what is wrong with its answer."""
        connection = http.client.HTTPConnection(*address, timeout=PARAMETERS_TIMEOUT_S)
        try:
            connection.request("GET", "/execution-parameters")
            answer = connection.getresponse()
            told, complaint = read_execution_parameters(answer.status, answer.read(MIB))
        except (OSError, http.client.HTTPException) as error:
            told, complaint = ExecutionParameters(), str(error) or repr(error)
        finally:
            connection.close()
        if complaint is not None:
            self._note("ExecutionParameters", f"GET /execution-parameters was of no use, defaults hold: {complaint}")
        return told

    def _report_progress(self) -> None:
        self.report(Phase.TRANSFORMING, f"Transforming: {self._tally.progress.describe()}")

    def _note(self, kind: str, message: str) -> None:
        spec = self._spec
        where = f"Machine {spec.machine_index + 1} of {spec.machine_count}: " if spec.machine_count > 1 else ""
        self._reporter.note_transform(spec.job_name, spec.attempt, kind, f"{where}{message}")

    def _log(self, lines: Sequence[LogLine]) -> None:
        stream = f"{self._spec.job_name}/{host_name(self._spec.machine_index)}-{self._spec.attempt}"
        self._reporter.log(LOG_GROUP, stream, lines)

    def _check_stop(self) -> None:
        if self._stop_requested:
            raise Stopped
