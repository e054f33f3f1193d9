"""One machine's part in changing a job while it trains: what is asked for, made ready, told, heard of or not.

All machines of a job go through it alike: they make ready together, and what one met with, all give up. Nothing here
waits, since containers may end at any moment: `look` is called again and again. What the platform keeps of a change is
told by machine 0. What a change does to containers is `instance.py`'s matter, who replaces them `attempt.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from raymaker.actors.crew import Crew
from raymaker.actors.errors import WorkError
from raymaker.actors.instance import Instance
from raymaker.actors.reports import JobReporter, UpdateReport, UpdateStage
from raymaker.actors.spec import Manner, TrainingSpec, UpdateSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """How far a machine got with making a change ready: what kept it from it, why containers would have to go."""

    problem: str | None = None
    restart_reason: str | None = None


@dataclass(frozen=True)
class Heard:
    """Which ranks of a machine have heard of a change; `closed` once none can hear of it any more."""

    ranks: tuple[int, ...] = ()
    closed: bool = False


class Updating:
    """Goes through one change after the other. `spec` of the instance is what is in force."""

    def __init__(
        self, instance: Instance, reporter: JobReporter, crew: Crew, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._instance = instance
        self._reporter = reporter
        self._crew = crew
        self._clock = clock
        self._done = instance.spec.revisions.number
        self._stage: Callable[[], UpdateSpec | None] = self._begin
        self._thread = ThreadPoolExecutor(1, "update")
        self._has_offered = False

    def look(self) -> UpdateSpec | None:
        """Go one step on. Returns a change for which all machines' containers must go now; all then say so."""
        return self._stage()

    def is_bound(self) -> bool:
        """Tell whether the others may take this machine's word that it is ready, so that it has to see what they do."""
        return self._has_offered

    def close(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> UpdateSpec | None:
        """See whether there is a change to make, and begin to make it ready."""
        wanted = self._crew.wanted_revision()
        if wanted <= self._done:
            return None
        spec = self._instance.spec
        update = self._reporter.standing(spec.job_name, spec.attempt).update
        if update is None or update.number <= self._done:
            self._done = wanted
            return None
        if update.manner is Manner.TELL and update.changes_code:
            self._prepare(update, lambda: self._stage_code(update), self._tell)
        elif update.manner is Manner.REPLACE:
            self._prepare(update, lambda: self._prepare_next(update), self._give_way)
        else:
            self._prepare(update, Ready, self._tell if update.manner is Manner.TELL else self._give_way)
        return None

    def _prepare(
        self, update: UpdateSpec, work: Callable[[], Ready], then: Callable[[UpdateSpec], UpdateSpec | None]
    ) -> None:
        """Do what takes long in a thread of its own, meet the others when it is done, and go on together."""
        mine = self._thread.submit(work)
        name = f"update-{update.number}-{then.__name__}"
        self._stage = lambda: self._await_all(update, mine, name, then)

    def _await_all(
        self,
        update: UpdateSpec,
        mine: Future[Ready],
        name: str,
        then: Callable[[UpdateSpec], UpdateSpec | None],
    ) -> UpdateSpec | None:
        if not mine.done():
            return None
        offers = self._crew.offer(name, _outcome(mine))
        self._has_offered = True
        if len(offers) < self._crew.place.machine_count:
            return None
        self._has_offered = False
        problem = next((offer.problem for offer in offers.values() if offer.problem), None)
        reason = next((offer.restart_reason for offer in offers.values() if offer.restart_reason), None)
        if problem is not None:
            self._fail(update, problem)
        elif reason is not None:
            self._restart_or_fail(update, reason)
        else:
            return then(update)
        return None

    def _stage_code(self, update: UpdateSpec) -> Ready:
        assert update.spec.source is not None
        return Ready(restart_reason=self._instance.stage_code(update.spec.source))

    def _prepare_next(self, update: UpdateSpec) -> Ready:
        self._instance.prepare_next(update.spec)
        return Ready()

    def _give_way(self, update: UpdateSpec) -> UpdateSpec:
        self._end(update)
        return update

    def _tell(self, update: UpdateSpec) -> UpdateSpec | None:
        """Have the containers here hear of it, and wait for that."""
        before, deadline = self._instance.spec, self._clock() + update.hear_timeout_s
        try:
            self._instance.tell(update.spec)
        except WorkError as error:  # the others hear of it: this machine's word says that nobody here can
            logger.warning("machine %d: %s", self._crew.place.machine_index, error)
            deadline = self._clock()
        self._stage = lambda: self._await_heard(update, before, deadline, closed=False)
        return None

    def _await_heard(
        self, update: UpdateSpec, before: TrainingSpec, deadline: float, *, closed: bool
    ) -> UpdateSpec | None:
        """Wait until any rank of the job has heard of it, or none can any more."""
        if not closed and self._clock() >= deadline and self._instance.take_back(update.number, before):
            closed = True
            self._stage = lambda: self._await_heard(update, before, deadline, closed=True)
        mine = Heard(self._instance.heard(update.number), closed)
        offers = self._crew.offer(f"update-{update.number}-heard", mine)
        if heard_by := sorted(rank for offer in offers.values() for rank in offer.ranks):
            self._apply(update, heard_by, told_again=closed)
        elif len(offers) == self._crew.place.machine_count and all(offer.closed for offer in offers.values()):
            waited = f"no container asked its exchange for changes within {update.hear_timeout_s:g} s"
            self._restart_or_fail(update, waited)
        return None

    def _apply(self, update: UpdateSpec, heard_by: list[int], *, told_again: bool) -> None:
        if told_again:
            self._instance.tell(update.spec)
        self._report(update, UpdateStage.APPLIED, heard_by=tuple(heard_by))
        self._end(update)

    def _restart_or_fail(self, update: UpdateSpec, reason: str) -> None:
        """Replace the containers where that was allowed."""
        if update.may_restart:
            self._prepare(update, lambda: self._prepare_next(update), self._give_way)
        else:
            remedy = "Have the algorithm ask for changes (docs/exchange.md), or allow a restart with IfNotHeard Restart"
            self._fail(update, f"{reason}. {remedy}")

    def _fail(self, update: UpdateSpec, reason: str) -> None:
        self._report(update, UpdateStage.FAILED, reason=reason)
        self._end(update)

    def _end(self, update: UpdateSpec) -> None:
        self._done = update.number
        self._stage = self._begin

    def _report(self, update: UpdateSpec, stage: UpdateStage, reason: str = "", heard_by: tuple[int, ...] = ()) -> None:
        if self._crew.place.machine_index == 0:
            spec = update.spec
            self._reporter.report_update(
                UpdateReport(spec.job_name, spec.attempt, update.number, stage, reason, heard_by)
            )


def _outcome(work: Future[Ready]) -> Ready:
    """What came of making ready, with what it met with in words."""
    try:
        return work.result()
    except WorkError as error:
        return Ready(problem=str(error))
    except Exception as error:
        logger.exception("a change could not be made ready")
        return Ready(problem=f"InternalServerError: {error!r}")
