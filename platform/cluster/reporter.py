"""How actors reach the control actor: every call is tried again, for as long as the control plane is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from raymaker.actors.reports import Activity, JobReport, Metric, ReportRefused, UpdateReport
from raymaker.actors.runtime.base import LogLine
from raymaker.actors.spec import Standing
from raymaker.serving.async_queue import AsyncInvocation, Claim

NAMESPACE = "raymaker"
CONTROL_NAME = "control"

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class ControlReporter:
    """A JobReporter, an EndpointReporter and an InvocationQueue by way of the control actor.

    Holds no handle, so it survives its restarts.
    """

    def greet(self) -> None:
        """Call the control actor, to which Ray connects at a process's first call."""
        self._call("greet")

    def report(self, report: JobReport) -> None:
        """Record one step; returns once it is durable."""
        self._call("report", report)

    def begin_start(self, job_name: str, attempt: int, message: str) -> Standing:
        """Begin the next start of an attempt's instances; asked for twice, a number is passed over."""
        standing: Standing = self._call("begin_start", job_name, attempt, message)
        return standing

    def standing(self, job_name: str, attempt: int) -> Standing:
        """Ask what the job is to run."""
        standing: Standing = self._call("standing", job_name, attempt)
        return standing

    def report_update(self, report: UpdateReport) -> bool:
        """Record what became of a change; returns once it is durable."""
        return bool(self._call("report_update", report))

    def note(self, job_name: str, attempt: int, kind: str, message: str) -> None:
        """Record an event of the job."""
        self._call("note", job_name, attempt, kind, message)

    def metrics(self, job_name: str, attempt: int, metrics: Sequence[Metric]) -> None:
        """Record numbers read from the log."""
        self._call("metrics", job_name, attempt, metrics)

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines to a log stream; repeats are dropped there."""
        self._call("log", group, stream, lines)

    def last_log_time(self, group: str, stream: str) -> int:
        """The time of the stream's last line."""
        return int(self._call("last_log_time", group, stream))

    def event(self, endpoint_name: str, generation: int, message: str, *, failed: bool) -> None:
        """Tell what a replica went through."""
        self._call("endpoint_event", endpoint_name, generation, message, failed=failed)

    def activity(self, activity: Activity) -> None:
        """Tell of a replica's load; a word that the control actor does not hear is followed by the next."""
        try:
            ray.get_actor(CONTROL_NAME, namespace=NAMESPACE).call.remote("endpoint_activity", activity)
        except ValueError:
            logger.warning("the control actor is away: nobody hears of the load of %s", activity.endpoint_name)

    def put(self, invocation: AsyncInvocation) -> None:
        """Accept an asynchronous invocation; the same one again changes nothing."""
        self._call("queue", "put", invocation)

    def claim(self, endpoint_name: str, count: int, lease_s: float) -> list[Claim]:
        """Claim invocations; those of an answer that is lost on its way are claimed again when their lease is over."""
        claims: list[Claim] = self._call("queue", "claim", endpoint_name, count, lease_s)
        return claims

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold a claim for longer."""
        return bool(self._call("queue", "renew", claim, lease_s))

    def settle(self, claim: Claim, notice: Mapping[str, Any]) -> bool:
        """Note that an invocation is answered."""
        return bool(self._call("queue", "settle", claim, notice))

    def release(self, claim: Claim, delay_s: float) -> bool:
        """Give a claim back."""
        return bool(self._call("queue", "release", claim, delay_s))

    def finish(self, claim: Claim) -> bool:
        """Forget an invocation."""
        return bool(self._call("queue", "finish", claim))

    def living_pools(self) -> frozenset[str]:
        """Name the warm pools that are in use or kept."""
        living: frozenset[str] = self._call("living_pools")
        return living

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the control actor until it answers. Raises what it refuses with, never that it is away."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                control = ray.get_actor(CONTROL_NAME, namespace=NAMESPACE)
                return ray.get(control.call.remote(method, *args, **kwargs))
            except RayTaskError as error:
                if isinstance(error.cause, ReportRefused):
                    raise ReportRefused(*error.cause.args) from None
                logger.warning("the control actor could not take %s: %s", method, error)
            except (RayActorError, ValueError) as error:  # ValueError: no actor of that name yet
                logger.warning("the control actor is away: %s", error)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
