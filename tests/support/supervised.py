"""A supervisor without a platform around it: what it reports is kept here, for a test to look at."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raymaker.actors.reports import JobReport, Metric, Outcome, UpdateReport, UpdateStage
from raymaker.actors.runtime.base import ContainerRuntime, LogLine
from raymaker.actors.site import Site
from raymaker.actors.spec import (
    InstanceType,
    Manner,
    Resources,
    SourceSpec,
    Standing,
    TrainingSpec,
    UpdateSpec,
)
from raymaker.actors.supervisor import Supervisor

END_TIMEOUT_S = 120.0
_numbers = itertools.count(1)


@dataclass
class KeptReports:
    """A JobReporter that keeps what it is told."""

    reports: list[JobReport] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)
    numbers: list[Metric] = field(default_factory=list)
    starts: int = 0
    standing_now: Standing | None = None
    told: list[UpdateReport] = field(default_factory=list)
    spoken: threading.Condition = field(default_factory=threading.Condition)

    def report(self, report: JobReport) -> None:
        with self.spoken:
            self.reports.append(report)
            self.spoken.notify_all()

    def begin_start(self, job_name: str, attempt: int, message: str) -> int:
        self.starts += 1
        return self.starts

    def standing(self, job_name: str, attempt: int) -> Standing:
        assert self.standing_now is not None
        return self.standing_now

    def report_update(self, report: UpdateReport) -> bool:
        """As the platform does it: what is in force is what containers have heard of, or are about to be made for."""
        standing = self.standing_now
        assert standing is not None
        with self.spoken:
            self.told.append(report)
            self.spoken.notify_all()
        update = standing.update
        if update is None or update.number != report.revision:
            return False
        if report.stage is UpdateStage.RESTARTING and update.manner is not Manner.MOVE:
            revisions = dataclasses.replace(update.spec.revisions, restart=update.number)
            spec = dataclasses.replace(update.spec, revisions=revisions)
            self.standing_now = dataclasses.replace(standing, spec=spec)
        elif report.stage is UpdateStage.APPLIED:
            self.standing_now = dataclasses.replace(standing, spec=update.spec, update=None)
        elif report.stage is UpdateStage.FAILED:
            self.standing_now = dataclasses.replace(standing, update=None)
        return True

    def deletes_model(self) -> None:
        """Have no model stored."""
        assert self.standing_now is not None
        self.standing_now = dataclasses.replace(self.standing_now, deletes_model=True)

    def until_told(self, stage: UpdateStage) -> UpdateReport:
        """Wait until a change is told to be that far."""
        with self.spoken:
            assert self.spoken.wait_for(lambda: stage in {it.stage for it in self.told}, END_TIMEOUT_S), stage
        return next(it for it in reversed(self.told) if it.stage is stage)

    def note(self, job_name: str, attempt: int, kind: str, message: str) -> None:
        self.notes.append((kind, message))

    def metrics(self, job_name: str, attempt: int, metrics: Sequence[Metric]) -> None:
        self.numbers.extend(metrics)

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        with self.spoken:
            self.lines.setdefault(stream, []).extend(line.text for line in lines)
            self.spoken.notify_all()

    def last_log_time(self, group: str, stream: str) -> int:
        return 0

    def until_said(self, words: str, count: int = 1) -> None:
        """Wait until that many log lines have these words."""
        with self.spoken:
            assert self.spoken.wait_for(lambda: self._said(words) >= count, END_TIMEOUT_S), f"{words!r} was not said"

    def until_phase(self, phase: str) -> None:
        """Wait until the job is in a phase."""
        with self.spoken:
            assert self.spoken.wait_for(lambda: any(it.phase == phase for it in self.reports), END_TIMEOUT_S), phase

    @property
    def end(self) -> JobReport:
        """The last report."""
        return self.reports[-1]

    @property
    def outcome(self) -> Outcome | None:
        return self.end.outcome

    def _said(self, words: str) -> int:
        return sum(words in line for lines in self.lines.values() for line in lines)


@dataclass
class Trial:
    """One job that a supervisor runs from source code, on a runtime of the test's choice."""

    site: Site
    runtime: ContainerRuntime
    folder: Path
    kept: KeptReports = field(default_factory=KeptReports)
    spec: TrainingSpec | None = None

    def begin(self, script: str, **changes: Any) -> Supervisor:
        """Start a supervisor for `train.py` with this text."""
        self.plan(script, **changes)
        return self.supervise()

    def plan(self, script: str, **changes: Any) -> TrainingSpec:
        """Have the platform want a job that runs `train.py` with this text."""
        code = self.folder / "code"
        code.mkdir(exist_ok=True)
        (code / "train.py").write_text(script)
        defaults = TrainingSpec(
            job_name=f"trial-{next(_numbers)}",
            job_arn="arn:aws:sagemaker:us-east-1:000000000000:training-job/trial",
            region="us-east-1",
            attempt=1,
            instance_type=InstanceType("local", Resources(cpus=2)),
            output_uri=(self.folder / "out").as_uri(),
            source=SourceSpec(code.as_uri(), "train.py"),
        )
        self.spec = dataclasses.replace(defaults, **changes)
        self.kept.standing_now = Standing(self.spec)
        return self.spec

    def supervise(self) -> Supervisor:
        """Start a supervisor for the job as it was begun, as when an earlier one has died."""
        assert self.spec is not None
        return Supervisor(self.spec, self.site, self.runtime, self.kept, "here")

    def want(self, number: int = 1, manner: Manner = Manner.TELL, *, script: str | None = None, **changes: Any) -> None:
        """Have the platform want a change of the job. `script` is a new `train.py`, fields of UpdateSpec go to that."""
        standing = self.kept.standing_now
        assert standing is not None
        options = {
            name: changes.pop(name) for name in ("may_restart", "hear_timeout_s", "deletes_model") if name in changes
        }
        numbers = {"number": number}
        if "hyperparameters" in changes:
            numbers["hyperparameters"] = number
        if script is not None or "source" in changes:
            numbers["code"] = number
        if script is not None:
            code = self.folder / f"code-{number}"
            code.mkdir()
            (code / "train.py").write_text(script)
            changes["source"] = SourceSpec(code.as_uri(), "train.py")
        revisions = dataclasses.replace(standing.spec.revisions, **numbers)
        spec = dataclasses.replace(standing.spec, revisions=revisions, **changes)
        update = UpdateSpec(spec, manner, changes_code="code" in numbers, **options)
        self.kept.standing_now = dataclasses.replace(standing, update=update)

    def run(self, script: str, **changes: Any) -> JobReport:
        """Start one, wait for its end and return its last report."""
        supervisor = self.begin(script, **changes)
        assert supervisor.wait(END_TIMEOUT_S), "the supervisor did not end"
        return self.kept.end

    @property
    def output(self) -> Path:
        """Where the job's output lies."""
        assert self.spec is not None
        return self.folder / "out" / self.spec.job_name / "output"
