"""One training job on one machine, from request to model: the order of its steps, and what is told of them.

A supervisor is made an actor where it is created and may die at any line: made again with the same spec it takes up
the running container and goes on. What a machine does in each step is `instance.py`'s matter.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable

from raymaker.actors.errors import ContainerMissing, EngineAway, WorkError
from raymaker.actors.instance import AttemptLost, Instance, StopRequested
from raymaker.actors.joblog import JobLog
from raymaker.actors.lease import LeaseHeld
from raymaker.actors.reports import JobReport, JobReporter, Outcome, ReportRefused
from raymaker.actors.runtime.base import ContainerRuntime, ExitStatus
from raymaker.actors.site import Site
from raymaker.actors.spec import TrainingSpec

logger = logging.getLogger(__name__)

WAIT_STEP_S = 0.5
FAILURE_REASON_CHARS = 1024
"""SageMaker's limit on FailureReason."""


class Supervisor:
    """Runs one attempt in a thread of its own, so that `stop` and `attempt` are answered at any time."""

    def __init__(
        self, spec: TrainingSpec, site: Site, runtime: ContainerRuntime, reporter: JobReporter, machine: str = ""
    ) -> None:
        self._spec = spec
        self._site = site
        self._runtime = runtime
        self._reporter = reporter
        self._machine = machine
        self._stop = threading.Event()
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._digest: str | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=f"job-{spec.job_name}", daemon=True).start()

    def attempt(self) -> int:
        """Return the attempt's number; an answer means that the supervisor lives."""
        return self._spec.attempt

    def stop(self) -> None:
        """Ask the job to stop: SIGTERM, grace, SIGKILL, and what it leaves is still stored. Asking twice is fine."""
        self._stop.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the attempt has ended and been reported; False where `timeout_s` passed first."""
        return self._ended.wait(timeout_s)

    def _run(self) -> None:
        try:
            with Instance(self._spec, self._site, self._runtime) as instance:
                try:
                    self._attempt(instance)
                except ReportRefused as refusal:
                    logger.warning("attempt %d of %s is fenced: %s", self._spec.attempt, self._spec.job_name, refusal)
                instance.clean_up()
        except LeaseHeld:
            logger.warning("attempt %d of %s already has a supervisor", self._spec.attempt, self._spec.job_name)
        finally:
            self._ended.set()

    def _attempt(self, instance: Instance) -> None:
        """Go through the steps and report exactly one end."""
        try:
            exit_status, timed_out = self._train(instance)
            self._finish(instance, exit_status, timed_out=timed_out)
        except StopRequested:
            self._end(Outcome.STOPPED, "Training job stopped before its container started")
        except AttemptLost as lost:
            self._report("Interrupted", str(lost))
        except (ContainerMissing, EngineAway) as lost:
            self._report("Interrupted", f"The container or its engine went away: {lost}")
        except WorkError as error:
            self._end(Outcome.FAILED, "Training job failed", failure=f"ClientError: {error}")
        except ReportRefused:
            raise
        except Exception as error:
            logger.exception("supervising %s failed", self._spec.job_name)
            self._end(Outcome.FAILED, "Training job failed", failure=f"InternalServerError: {error!r}")

    def _train(self, instance: Instance) -> tuple[ExitStatus, bool]:
        """Prepare, start and wait. Returns how the container ended and whether the time limit ended it."""
        if not instance.was_started():
            self._report("Starting", "Preparing the instance for training")
            self._digest = instance.prepare_algorithm()
            self._report("Downloading", "Downloading input data")
            instance.fetch_channels(self._download_progress())
            instance.check_output()
            self._check_stop()
        handle = instance.start()
        self._started_at = instance.started_at()
        self._report("Training", "Training image download completed. Training in progress.")
        with JobLog(instance.runtime, handle, self._spec, self._reporter):
            exit_status, timed_out = self._wait(instance)
        self._ended_at = time.time()
        return exit_status, timed_out

    def _wait(self, instance: Instance) -> tuple[ExitStatus, bool]:
        """Block until the container exits, is asked to stop, or passes its time limit."""
        deadline = instance.started_at() + self._spec.max_runtime_s
        stopping: threading.Thread | None = None
        timed_out = False
        while (status := instance.wait(WAIT_STEP_S)) is None:
            timed_out = timed_out or (time.time() >= deadline and not self._stop.is_set())
            if stopping is None and (timed_out or self._stop.is_set()):
                stopping = threading.Thread(target=instance.stop, name="stop", daemon=True)
                stopping.start()
        if stopping is not None:
            stopping.join()
        return status, timed_out

    def _finish(self, instance: Instance, status: ExitStatus, *, timed_out: bool) -> None:
        """Store what the container left and report how it ended. Raises AttemptLost where that was not its doing."""
        if status.lost and not timed_out and not self._stop.is_set():
            raise AttemptLost(f"the container did not end by itself: {status.describe()}")
        self._report("Uploading", "Uploading generated training model")
        instance.store_output()
        if timed_out:
            self._end(
                Outcome.TIMED_OUT, "Training job runtime exceeded MaxRuntimeInSeconds", status, instance.store_model()
            )
        elif self._stop.is_set():
            self._end(Outcome.STOPPED, "Training job stopped", status, instance.store_model())
        elif status.code == 0:
            self._end(Outcome.COMPLETED, "Training job completed", status, instance.store_model())
        else:
            self._end(Outcome.FAILED, "Training job failed", status, failure=self._algorithm_error(instance, status))

    def _algorithm_error(self, instance: Instance, status: ExitStatus) -> str:
        """Say why the algorithm failed: its own words where it left some, else how it ended and what it said last."""
        if said := instance.read_failure():
            return f"AlgorithmError: {said}, exit code: {status.code}"
        tail = "\n".join(instance.last_log_lines(20))
        remedy = "Choose an instance type with more memory. " if status.oom_killed else ""
        said = f"It said last:\n{tail}" if tail else "It said nothing."
        return f"AlgorithmError: {status.describe()}. {remedy}{said}, exit code: {status.code}"

    def _download_progress(self) -> Callable[[str], None]:
        """Tell how far the download is, at most once a second."""
        last = 0.0

        def tell(message: str) -> None:
            nonlocal last
            self._check_stop()
            if time.monotonic() - last >= 1.0:
                last = time.monotonic()
                self._report("Downloading", message)

        return tell

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StopRequested

    def _report(self, phase: str, message: str) -> None:
        self._reporter.report(self._make_report(phase, message))

    def _end(
        self,
        outcome: Outcome,
        message: str,
        status: ExitStatus | None = None,
        model_uri: str | None = None,
        *,
        failure: str | None = None,
    ) -> None:
        """Report the end; durable when it returns."""
        self._reporter.report(
            dataclasses.replace(
                self._make_report(outcome.value, message),
                outcome=outcome,
                failure_reason=shorten(failure) if failure else None,
                exit_code=status.code if status else None,
                model_uri=model_uri,
            )
        )

    def _make_report(self, phase: str, message: str) -> JobReport:
        return JobReport(
            job_name=self._spec.job_name,
            attempt=self._spec.attempt,
            phase=phase,
            message=message,
            time=time.time(),
            image_digest=self._digest,
            training_started_at=self._started_at,
            training_ended_at=self._ended_at,
            details={"node": self._machine},
        )


def shorten(reason: str) -> str:
    """Cut a reason to SageMaker's limit, keeping its beginning and its end: both say what happened."""
    if len(reason) <= FAILURE_REASON_CHARS:
        return reason
    head, tail = FAILURE_REASON_CHARS // 3, FAILURE_REASON_CHARS - FAILURE_REASON_CHARS // 3 - 5
    return f"{reason[:head]} ... {reason[-tail:]}"
