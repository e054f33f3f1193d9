"""A transform job's machine without a platform around it: what it reports is kept here, for a test to look at."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raymaker.actors.reports import Outcome, ReportRefused
from raymaker.actors.runtime.base import ContainerRuntime, LogLine
from raymaker.actors.site import Site
from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.transform.machine import TransformMachine
from raymaker.serving.transform.reports import Finished, Ledger, Phase, TransformReport
from raymaker.serving.transform.spec import DataProcessing, TransformInput, TransformOutput, TransformSpec

END_TIMEOUT_S = 120.0
_numbers = itertools.count(1)


@dataclass
class KeptTransform:
    """A TransformReporter that keeps what it is told, and knows what is through as the platform does."""

    reports: list[TransformReport] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    finished: dict[str, Finished] = field(default_factory=dict)
    started_at: float | None = None
    is_fenced: bool = False
    spoken: threading.Condition = field(default_factory=threading.Condition)

    def begin_transform(self, job_name: str, attempt: int) -> Ledger:
        self._check()
        return Ledger(dict(self.finished), self.started_at)

    def report_transform(self, report: TransformReport) -> None:
        self._check()
        with self.spoken:
            self.reports.append(report)
            self.finished |= {item.name: item for item in report.finished}
            self.spoken.notify_all()

    def note_transform(self, job_name: str, attempt: int, kind: str, message: str) -> None:
        with self.spoken:
            self.notes.append((kind, message))
            self.spoken.notify_all()

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        self.lines += [line.text for line in lines]

    def fence(self) -> None:
        """Refuse whatever comes from now on."""
        self.is_fenced = True

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until something said makes the condition true."""
        with self.spoken:
            assert self.spoken.wait_for(condition, END_TIMEOUT_S), what

    def until_through(self, count: int) -> None:
        """Wait until so many objects are through."""
        self.until(lambda: len(self.finished) >= count, f"{count} objects through")

    @property
    def end(self) -> TransformReport:
        """The last report."""
        return self.reports[-1]

    def failures(self) -> dict[str, str]:
        """Why objects failed, by name."""
        return {item.name: item.failure for item in self.finished.values() if item.failure is not None}

    def _check(self) -> None:
        if self.is_fenced:
            raise ReportRefused("another attempt is the job's")


@dataclass
class TransformTrial:
    """Transform jobs over a folder of objects, on one image."""

    site: Site
    runtime: ContainerRuntime
    folder: Path
    image: str
    kept: KeptTransform = field(default_factory=KeptTransform)

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write the input."""
        for name, content in objects.items():
            path = self.folder / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def begin(
        self,
        *,
        source: Mapping[str, Any] | None = None,
        output: Mapping[str, Any] | None = None,
        processing: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> TransformMachine:
        """Start a machine. `source`, `output` and `processing` change those parts of the spec."""
        where = {name: (self.folder / name).as_uri() for name in ("in", "out")}
        spec = TransformSpec(
            job_name=f"trial-{next(_numbers)}",
            job_arn="arn:aws:sagemaker:us-east-1:000000000000:transform-job/trial",
            attempt=1,
            instance_type=InstanceType("local", Resources(cpus=1)),
            scoring=ScoringSpec(image=self.image, environment=environment or {}, startup_timeout_s=60),
            input=TransformInput(**{"uri": where["in"], "content_type": "text/csv", **(source or {})}),
            output=TransformOutput(**{"uri": where["out"], **(output or {})}),
            processing=DataProcessing(**(processing or {})),
        )
        return TransformMachine(dataclasses.replace(spec, **changes), self.site, self.runtime, self.kept)

    def run(self, **options: Any) -> TransformReport:
        """Start a machine, wait for its end and return its last report."""
        assert self.begin(**options).wait(END_TIMEOUT_S), "the machine did not end"
        assert self.kept.end.phase in {Phase.ENDED, Phase.INTERRUPTED}
        return self.kept.end

    def complete(self, **options: Any) -> dict[str, bytes]:
        """Run a machine that is to end well, and return its outputs by name."""
        end = self.run(**options)
        assert end.outcome is Outcome.COMPLETED, end
        assert self.kept.failures() == {}
        return self.outputs()

    def outputs(self) -> dict[str, bytes]:
        """What is stored, by name."""
        root = self.folder / "out"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
