"""One machine of a transform job, from its share of the objects to their outputs. Made an actor elsewhere.

May die at any line: made again with the same spec it goes on with the objects that are not through, since the platform
keeps which ones are and what is stored is whole. The steps are in `attempt.py`.
"""

from __future__ import annotations

import logging
import shutil
import threading

from raymaker.actors.errors import ContainerMissing, EngineAway, WorkError
from raymaker.actors.lease import Lease, LeaseHeld
from raymaker.actors.reports import Outcome, ReportRefused
from raymaker.actors.runtime.base import ContainerRuntime
from raymaker.actors.site import Site
from raymaker.serving.transform.attempt import Attempt
from raymaker.serving.transform.reports import Phase, TransformReporter
from raymaker.serving.transform.spec import TransformSpec

logger = logging.getLogger(__name__)

LEASE_TIMEOUT_S = 30.0
ENDS = {
    Outcome.COMPLETED: "Transform job completed",
    Outcome.STOPPED: "Transform job stopped",
    Outcome.TIMED_OUT: "Transform job runtime exceeded MaxRuntimeInSeconds",
}


class TransformMachine:
    """Runs one machine's attempt in a thread of its own, so that `stop` and `attempt` are answered at any time."""

    def __init__(self, spec: TransformSpec, site: Site, runtime: ContainerRuntime, reporter: TransformReporter) -> None:
        self._spec = spec
        self._site = site
        self._name = f"transform-{spec.job_name}-{spec.label}"
        self._folder = site.transforms / spec.job_name / spec.label
        self._attempt = Attempt(spec, site, runtime, reporter, name=self._name, folder=self._folder)
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def attempt(self) -> int:
        """Return the attempt's number; an answer means that the machine lives."""
        return self._spec.attempt

    def stop(self) -> None:
        """Ask the machine to stop: what is stored stays. Asking twice is fine."""
        self._attempt.request_stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the machine has ended and said so; False where `timeout_s` passed first."""
        return self._ended.wait(timeout_s)

    def _run(self) -> None:
        try:
            with Lease.acquire(self._site.home, self._name, LEASE_TIMEOUT_S):
                try:
                    self._transform()
                except ReportRefused as refusal:
                    logger.warning("%s is fenced: %s", self._name, refusal)
                finally:
                    shutil.rmtree(self._folder, ignore_errors=True)
        except LeaseHeld:
            logger.warning("%s already has a process", self._name)
        finally:
            self._ended.set()

    def _transform(self) -> None:
        """Go through the attempt, and tell how it ended. Raises ReportRefused."""
        tell = self._attempt.report
        try:
            outcome = self._attempt.run()
            tell(Phase.ENDED, ENDS[outcome], outcome=outcome)
        except (EngineAway, ContainerMissing, LeaseHeld) as lost:
            tell(Phase.INTERRUPTED, str(lost))
        except WorkError as error:
            tell(Phase.ENDED, "Transform job failed", outcome=Outcome.FAILED, failure_reason=f"ClientError: {error}")
        except ReportRefused:
            raise
        except Exception as error:
            logger.exception("%s failed", self._name)
            reason = f"InternalServerError: {error!r}"
            tell(Phase.ENDED, "Transform job failed", outcome=Outcome.FAILED, failure_reason=reason)
