"""One attempt at a training job as one of its machines goes through it: the order of its steps, and what is told.

All machines of a job take the same steps and meet at each of them; machine 0 speaks for all. What a step does on a
machine is `instance.py`'s matter, how machines meet is `crew.py`'s, and what an end means is `verdict.py`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raymaker.actors.channels.news import StreamNews
from raymaker.actors.containers import AttemptLost
from raymaker.actors.crew import Crew
from raymaker.actors.errors import WorkError
from raymaker.actors.instance import Instance
from raymaker.actors.joblog import JobLog
from raymaker.actors.lease import LeaseHeld
from raymaker.actors.metric_pump import MetricPump
from raymaker.actors.model_data import ModelData
from raymaker.actors.reports import JobReport, JobReporter, Outcome, ReportRefused, UpdateReport, UpdateStage, shorten
from raymaker.actors.resource_use import ResourcePump
from raymaker.actors.runtime.base import ExitStatus
from raymaker.actors.spec import Manner, Place, Standing, TrainingSpec, UpdateSpec
from raymaker.actors.teller import Teller
from raymaker.actors.updating import Updating
from raymaker.actors.verdict import Ending, Kind, Verdict, judge

logger = logging.getLogger(__name__)

WAIT_STEP_S = 0.5
ALARM_GRACE_S = 5.0
"""How long containers may go on once another has failed: time to hear of it from the exchange and to say so."""
ALARM_STOP_S = 10.0
"""How long they then have between SIGTERM and SIGKILL."""
LOG_TAIL_COUNT = 20
TRAINING = "Training image download completed. Training in progress."

_OUTCOMES = {
    Kind.COMPLETED: (Outcome.COMPLETED, "Training job completed"),
    Kind.FAILED: (Outcome.FAILED, "Training job failed"),
    Kind.STOPPED: (Outcome.STOPPED, "Training job stopped"),
    Kind.TIMED_OUT: (Outcome.TIMED_OUT, "Training job runtime exceeded MaxRuntimeInSeconds"),
}


class StopRequested(Exception):
    """The job was asked to stop before its containers started."""


@dataclass(frozen=True)
class Problem:
    """What kept one machine from a step, so that all give up together. No message: it was asked to stop."""

    message: str = ""


class CannotRun(Exception):
    """A machine could not take a step that must succeed. The message is the job's FailureReason."""


class Moved(Exception):
    """The job starts again on other machines; these are given up."""


class Attempt:
    """Runs one attempt on one machine. `node` names the machine to the platform, which fences attempts that moved.

    `standing` is what the platform has down for the attempt, which is asked where that is not known.
    """

    def __init__(
        self, instance: Instance, reporter: JobReporter, crew: Crew, node: str, standing: Standing | None = None
    ) -> None:
        self._instance = instance
        self._reporter = reporter
        self._crew = crew
        self._node = node
        self._standing = standing
        self._digest: str | None = None
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._round = 0
        """How often containers were put in the place of others."""
        self._teller = Teller(reporter)

    def run(self) -> None:
        """Go through the steps and report exactly one end. Raises AttemptLost, ReportRefused."""
        with self._teller:
            self._run()

    def _run(self) -> None:
        try:
            self._begin()
            verdict = self._train()
            if verdict.kind is Kind.LOST:
                raise AttemptLost(verdict.reason)
            self._finish(verdict)
        except StopRequested:
            self._end(Outcome.STOPPED, "Training job stopped before its container started")
        except CannotRun as error:
            self._end(Outcome.FAILED, "Training job failed", str(error))
        except Moved:
            logger.info("attempt %d of %s has given up its machines", self._spec.attempt, self._spec.job_name)

    def _begin(self) -> None:
        """Prepare and start the containers, or take up those that an earlier owner started."""
        instance = self._instance
        asked = self._ask()
        was_started = instance.was_started()
        standing = asked()
        instance.adopt(standing.spec)
        if was_started and not instance.is_outdated():
            instance.take_up()
        else:
            self._report_meanwhile("Starting", "Preparing the instance for training")
            self._together("algorithm", self._prepare_algorithm)
            if instance.has_data():  # of an owner that died, perhaps while it replaced its containers
                instance.remove_outdated(deletes_model=standing.deletes_old_model)
            self._report_meanwhile("Downloading", "Downloading input data")
            self._together("data", self._fetch)
            self._together("start", self._start)
        self._started_at = standing.training_started_at or instance.started_at()
        self._report_training()

    def _ask(self) -> Callable[[], Standing]:
        """Begin to ask what the job is to run. What is returned waits for the answer."""
        if (known := self._standing) is not None:
            return lambda: known
        return self._teller.ask(self._spec.job_name, self._spec.attempt).result

    def _report_training(self) -> None:
        self._report("Training", TRAINING)

    def _called(self, name: str) -> str:
        """What machines call a step at which they meet; each round of containers has its own."""
        return f"{name}-{self._round}" if self._round else name

    def _prepare_algorithm(self) -> None:
        self._instance.remove_older()
        self._digest = self._instance.prepare_algorithm()

    def _fetch(self) -> None:
        self._instance.fetch_channels(self._download_progress())
        self._instance.restore_checkpoints()
        self._instance.check_output()
        self._check_stop()

    def _start(self) -> None:
        self._teller.check()  # whoever is known to be no longer wanted starts nothing
        self._instance.start(self._crew.across(), self._crew.hosts())

    def _together(self, name: str, step: Callable[[], None]) -> None:
        """Take a step, and meet the others after it. Raises StopRequested, CannotRun for what any machine met with."""
        problem = None
        try:
            step()
        except StopRequested:
            problem = Problem()
        except (AttemptLost, LeaseHeld, ReportRefused):
            raise
        except WorkError as error:
            problem = Problem(f"ClientError: {error}")
        except Exception as error:
            logger.exception("step %r of %s failed", name, self._spec.job_name)
            problem = Problem(f"InternalServerError: {error!r}")
        for index, found in enumerate(self._crew.gather(self._called(name), problem)):
            if found is not None and not found.message:
                raise StopRequested
            if found is not None:
                kind, _, words = found.message.partition(": ")
                where = f"machine {index + 1} of {self._crew.place.machine_count}: " if self._is_gang else ""
                raise CannotRun(f"{kind}: {where}{words}")

    def _train(self) -> Verdict:
        """Wait for the containers' end, replace them where that is asked for, and agree with the others on the end.

        Raises Moved.
        """
        update, ending = self._follow()
        while update is not None and self._go_on(update):
            update, ending = self._follow()
        self._ended_at = time.time()
        endings = self._crew.gather(self._called("end"), ending)
        return judge(endings, self._crew.place.world_size, retries_errors=self._spec.retries_errors)

    def _follow(self) -> tuple[UpdateSpec | None, Ending]:
        """Carry on what the containers say until all of them have ended, and store their last checkpoints.

        With them comes the change for which they had to end, None where they ended for anything else.
        """
        instance = self._instance
        updating = Updating(instance, self._reporter, self._crew)
        with contextlib.ExitStack() as logs:
            for rank, handle in instance.handles.items():
                logs.enter_context(JobLog(instance.runtime, handle, self._spec, self._reporter, rank))
            logs.enter_context(ResourcePump(instance, self._spec, self._reporter))
            logs.enter_context(MetricPump(instance.metrics, self._spec, self._reporter, instance.note))
            logs.enter_context(StreamNews(instance.input.streams, self._tell_of_streams))
            logs.callback(updating.close)
            update, ending = self._wait(updating)
            while update is not None and not self._may_begin(update):
                update, ending = self._wait(updating)
            if update is not None:
                ending = self._stop(Ending(stopped=True))
        instance.input.streams.close()
        ending = dataclasses.replace(ending, problem=instance.input.problem)
        with contextlib.suppress(WorkError):  # which was told as an event of the job
            self._instance.finish_checkpoints(time.time() if ending.was_killed else None)
        return update, ending

    def _may_begin(self, update: UpdateSpec) -> bool:
        """Have it written down that the containers go, before they do; False where that is no longer wanted."""
        may = self._tell(update, UpdateStage.RESTARTING) if self._is_first else None
        return bool(self._crew.gather(self._called(f"update-{update.number}"), may)[0])

    def _go_on(self, update: UpdateSpec) -> bool:
        """Put other containers in the place of those that have ended, with the data that is here.

        False where the job is to stop instead. Raises Moved where they are to be on other machines.
        """
        self._crew.gather(self._called("left"), None)  # all checkpoints are stored
        if update.manner is Manner.MOVE:
            may = self._tell(update, UpdateStage.MOVING) if self._is_first else None
            if self._crew.gather(self._called("moving"), may)[0]:
                raise Moved
            return False
        self._round += 1
        self._crew.renew(update.number)
        self._together("change", lambda: self._change_over(update))
        self._together("start", self._start)
        self._report_training()
        return True

    def _change_over(self, update: UpdateSpec) -> None:
        self._digest = self._instance.change_over(update.spec, deletes_model=update.deletes_model)

    def _tell(self, update: UpdateSpec, stage: UpdateStage) -> bool:
        spec = self._spec
        return self._reporter.report_update(UpdateReport(spec.job_name, spec.attempt, update.number, stage))

    def _wait(self, updating: Updating) -> tuple[UpdateSpec | None, Ending]:
        """Wait until all containers here have ended: by themselves, or since the job or another container did.

        Ends early for a change for which they are to go.
        """
        instance, count = self._instance, self._crew.place.containers_per_machine
        deadline = (self._started_at or instance.started_at()) + self._spec.max_runtime_s
        ended = instance.wait(WAIT_STEP_S, 0)
        alarmed_at: float | None = None
        while len(ended) < count or self._is_bound(updating):
            if self._is_bound(updating):  # the others count on this machine, whatever it meets with
                if (update := updating.look()) is not None:
                    return update, Ending()
                ended = instance.wait(WAIT_STEP_S, count)
                continue
            stopped, timed_out = self._crew.is_stop_requested(), time.time() >= deadline
            if stopped or timed_out:
                return None, self._stop(ending=Ending(stopped=stopped, timed_out=timed_out and not stopped))
            if self._instance.input.problem is not None:
                self._crew.raise_alarm()
                return None, self._stop(ending=Ending(ended), grace_s=ALARM_STOP_S)
            if alarmed_at is None and (self._raise_alarm(ended) or self._crew.is_alarmed()):
                alarmed_at = time.monotonic()
            if alarmed_at is not None and time.monotonic() - alarmed_at >= ALARM_GRACE_S:
                return None, self._stop(ending=Ending(ended), grace_s=ALARM_STOP_S)
            if alarmed_at is None and (update := updating.look()) is not None:
                return update, Ending()
            ended = instance.wait(WAIT_STEP_S, len(ended))
        self._raise_alarm(ended)
        return None, self._describe(Ending(ended))

    def _is_bound(self, updating: Updating) -> bool:
        """Tell whether other machines may be about to replace their containers since this one said that it is ready.

        Whoever has come to the end instead was not ready, so that they are not.
        """
        return updating.is_bound() and not self._crew.has_come(self._called("end"))

    def _raise_alarm(self, ended: Mapping[int, ExitStatus]) -> bool:
        """Tell the others where a container here has failed."""
        failed = any(status.code != 0 for status in ended.values())
        if failed:
            self._crew.raise_alarm()
        return failed

    def _stop(self, ending: Ending, grace_s: float | None = None) -> Ending:
        """Stop what still runs here. Those that end now do so since they were asked to."""
        self._instance.stop(grace_s)
        ended = self._instance.wait(WAIT_STEP_S)
        statuses = ending.statuses if not (ending.stopped or ending.timed_out) else ended
        return self._describe(dataclasses.replace(ending, statuses=statuses))

    def _describe(self, ending: Ending) -> Ending:
        """Add what the containers that failed have said, and whom the exchange blames."""
        words = {rank: self._words(rank, status) for rank, status in ending.statuses.items() if status.code != 0}
        return dataclasses.replace(ending, words=words, failure=self._instance.failure)

    def _words(self, rank: int, status: ExitStatus) -> str:
        """Say why a container failed: its own words where it left some, else how it ended and what it said last."""
        seat = self._instance.seats[rank - self._crew.place.ranks.start]
        if said := self._instance.read_failure(seat):
            return said
        tail = "\n".join(self._instance.last_log_lines(rank, LOG_TAIL_COUNT))
        remedy = "Choose an instance type with more memory. " if status.oom_killed else ""
        return f"{status.describe()}. {remedy}" + (f"It said last:\n{tail}" if tail else "It said nothing.")

    def _finish(self, verdict: Verdict) -> None:
        """Store what the containers left, and report how the attempt ended."""
        self._report("Uploading", "Uploading generated training model")
        data = ModelData(self._instance, self._spec)
        is_unwanted = self._is_model_unwanted()
        wants_model = verdict.kind is not Kind.FAILED and not is_unwanted
        if self._is_gang:
            self._together("part", lambda: data.store_part(wants_model=wants_model))
        uris: list[str | None] = []
        self._together("model", lambda: uris.append(data.store(wants_model=wants_model)) if self._is_first else None)
        outcome, message = _OUTCOMES[verdict.kind]
        if is_unwanted:
            self._together("delete", lambda: data.delete_model() if self._is_first else None)
            message += ". Its model data was deleted, as StopTrainingJob asked"
        failure = verdict.reason if verdict.kind is Kind.FAILED else None
        exit_code = verdict.status.code if verdict.status else None
        self._end(outcome, message, failure, exit_code=exit_code, model_uri=uris[0] if uris else None)

    def _is_model_unwanted(self) -> bool:
        """Ask whether the model is to be deleted; no longer can be, once the upload was reported."""
        standing = self._reporter.standing(self._spec.job_name, self._spec.attempt) if self._is_first else None
        return self._crew.gather("unwanted", standing is not None and standing.deletes_model)[0]

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
        if self._crew.is_stop_requested():
            raise StopRequested

    def _tell_of_streams(self, message: str) -> None:
        self._report("Training", f"{TRAINING} {message}")

    @property
    def _spec(self) -> TrainingSpec:
        return self._instance.spec

    @property
    def _is_first(self) -> bool:
        return self._crew.place.machine_index == 0

    @property
    def _is_gang(self) -> bool:
        return self._crew.place.machine_count > 1

    def _report(self, phase: str, message: str, **facts: Any) -> None:
        """Say where the job is: machine 0 speaks for all. Durable when it returns. Raises ReportRefused."""
        self._report_meanwhile(phase, message, **facts)
        self._teller.settle()

    def _report_meanwhile(self, phase: str, message: str, **facts: Any) -> None:
        """Say it while the next step is taken."""
        if self._is_first:
            facts |= {"image_digest": self._digest, "details": {"node": self._node}}
            facts |= {"training_started_at": self._started_at, "training_ended_at": self._ended_at}
            self._teller.tell(make_report(self._spec, phase, message, **facts))

    def _end(self, outcome: Outcome, message: str, failure: str | None = None, **facts: Any) -> None:
        failure = shorten(failure) if failure else None
        self._report(outcome.value, message, outcome=outcome, failure_reason=failure, **facts)


def make_note(reporter: JobReporter, spec: TrainingSpec, place: Place) -> Callable[[str, str], None]:
    """Make what tells events of this attempt, from the machine at `place`: their kind and their message."""
    where = f"Machine {place.machine_index + 1} of {place.machine_count}: " if place.machine_count > 1 else ""
    return lambda kind, message: reporter.note(spec.job_name, spec.attempt, kind, f"{where}{message}")


def make_report(spec: TrainingSpec, phase: str, message: str, **facts: Any) -> JobReport:
    """Make a report of this attempt, now. `facts` are JobReport's other fields."""
    return JobReport(
        spec.job_name,
        spec.attempt,
        phase,
        message,
        time.time(),
        start=spec.start,
        revision=spec.revisions.number,
        **facts,
    )


def report_failure(reporter: JobReporter, spec: TrainingSpec, reason: str) -> None:
    """Report that the job has failed for a reason that no step of it could tell."""
    facts: dict[str, Any] = {"outcome": Outcome.FAILED, "failure_reason": shorten(reason)}
    reporter.report(make_report(spec, Outcome.FAILED.value, "Training job failed", **facts))
