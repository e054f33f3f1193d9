"""One training job on one machine, from request to model. Jobs on several machines are `gang.py`'s.

A supervisor is made an actor where it is created and may die at any line: made again with the same spec it takes up
the running container and goes on, or gives the attempt up where that cannot be. The steps are in `attempt.py`.
"""

from __future__ import annotations

import logging
import threading

from raymaker.actors.attempt import Attempt, make_note, make_report, report_failure
from raymaker.actors.containers import AttemptLost
from raymaker.actors.crew import Alone
from raymaker.actors.errors import ContainerMissing, EngineAway
from raymaker.actors.instance import Instance
from raymaker.actors.lease import LeaseHeld
from raymaker.actors.reports import JobReporter, ReportRefused
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.site import Site
from raymaker.actors.spec import TrainingSpec

logger = logging.getLogger(__name__)


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
        self._crew = Alone(spec.containers_per_instance)
        self._settled = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=f"job-{spec.job_name}", daemon=True).start()

    def attempt(self) -> int:
        """Return the attempt's number; an answer means that the supervisor lives."""
        return self._spec.attempt

    def stop(self) -> None:
        """Ask the job to stop: SIGTERM, grace, SIGKILL, and what it leaves is still stored. Asking twice is fine."""
        self._crew.request_stop()

    def update(self, revision: int) -> None:
        """Ask for a change of the job, which the platform tells of. Asking twice is fine."""
        self._crew.want(revision)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until nothing is left to do; False where `timeout_s` passed first."""
        return self._ended.wait(timeout_s)

    def wait_settled(self) -> None:
        """Block until the attempt has ended and been reported; what it leaves on the machine may still be there."""
        self._settled.wait()

    def _run(self) -> None:
        place = self._crew.place
        note = make_note(self._reporter, self._spec, place)
        try:
            with Instance(self._spec, self._site, self._runtime, place, note) as instance:
                try:
                    self._attempt(instance)
                except ReportRefused as refusal:
                    logger.warning("attempt %d of %s is fenced: %s", self._spec.attempt, self._spec.job_name, refusal)
                self._settled.set()
                instance.clean_up()
        except LeaseHeld:
            logger.warning("attempt %d of %s already has a supervisor", self._spec.attempt, self._spec.job_name)
        finally:
            self._settled.set()
            self._ended.set()

    def _attempt(self, instance: Instance) -> None:
        """Go through the attempt, and tell where that came to no end of its own. Raises ReportRefused."""
        try:
            Attempt(instance, self._reporter, self._crew, self._machine).run()
        except AttemptLost as lost:
            self._reporter.report(make_report(self._spec, "Interrupted", str(lost)))
        except (ContainerMissing, EngineAway) as lost:
            message = f"The container or its engine went away: {lost}"
            self._reporter.report(make_report(self._spec, "Interrupted", message))
        except ReportRefused:
            raise
        except Exception as error:
            logger.exception("supervising %s failed", self._spec.job_name)
            report_failure(self._reporter, self._spec, f"InternalServerError: {error!r}")
