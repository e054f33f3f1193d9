"""What tests of evaluations share, and what tests of other things are without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raymaker.actors.reports import ReportRefused
from raymaker.actors.runtime.base import LogLine
from raymaker.platform.database import evaluation_reports, evaluations
from raymaker.platform.database.engine import Database
from raymaker.platform.evaluating import evaluations as moves
from raymaker.platform.evaluating.watch import CheckpointWatch
from raymaker.serving.evaluation.answers import Prediction
from raymaker.serving.evaluation.data import Record
from raymaker.serving.evaluation.records import RecordWriter
from raymaker.serving.evaluation.reports import EvaluationReport, Phase
from raymaker.serving.evaluation.spec import EvaluationSpec

CONFIG: dict[str, Any] = {
    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/held-out/"}},
    "ContentType": "text/csv",
    "LabelAttribute": "0",
    "ProblemType": "MulticlassClassification",
}
"""An EvaluationConfig with nothing in it that need not be."""


class NoEvaluators:
    """The part of a fleet that runs no evaluation."""

    def evaluators(self) -> frozenset[tuple[str, str]]:
        return frozenset()

    def evaluate(self, spec: EvaluationSpec) -> None:
        raise AssertionError(f"nobody asked for evaluation {spec.label}")

    def rest_evaluator(self, key: tuple[str, str]) -> None:
        raise AssertionError(f"there is no evaluator {key}")

    def end_evaluator(self, key: tuple[str, str]) -> None:
        raise AssertionError(f"there is no evaluator {key}")


def blind_watch() -> CheckpointWatch:
    """A watch that finds no checkpoint."""
    return CheckpointWatch(lambda _: (), lambda: None)


@dataclass
class KeptEvaluation:
    """An EvaluationReporter that keeps what it is told."""

    reports: list[EvaluationReport] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    attempt: int = 0
    is_fenced: bool = False

    def begin_evaluation(self, job_name: str, number: int) -> int:
        self.attempt += 1
        return self.attempt

    def report_evaluation(self, report: EvaluationReport) -> None:
        if self.is_fenced:
            raise ReportRefused("the evaluation was stopped")
        self.reports.append(report)

    def log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        self.lines += [line.text for line in lines]

    @property
    def steps(self) -> list[tuple[int, Phase]]:
        """Which evaluation told which phase, in order."""
        return [(report.number, report.phase) for report in self.reports]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics of an evaluation that has completed."""
        end = self.reports[-1]
        assert end.phase is Phase.COMPLETED, end
        return end.metrics

    @property
    def failure(self) -> str:
        """Why an evaluation has failed."""
        end = self.reports[-1]
        assert end.phase is Phase.FAILED, end
        return end.message


def play_evaluation(
    database: Database, job_name: str, number: int, now: float, metrics: Mapping[str, float] | str
) -> None:
    """Play an evaluation's machine from its place to its end: with metrics, or with why it failed."""
    with database.transaction() as connection:
        evaluations.move_evaluation(connection, job_name, number, lambda record: moves.start(record, now))
    attempt = evaluation_reports.begin(database, job_name, number, now)
    phase, told = (Phase.FAILED, {}) if isinstance(metrics, str) else (Phase.COMPLETED, metrics)
    message = metrics if isinstance(metrics, str) else "Evaluated on 10 records"
    spread = {"Outputs": {"Counts": [4, 6], "Classes": ["a", "b"]}}
    report = EvaluationReport(job_name, number, attempt, phase, message, now, 10, told, spread)
    evaluation_reports.apply_report(database, report, now)


def store_records(place: Path, results: Sequence[tuple[str, str, str, float]]) -> None:
    """Write results of single records, each an input, its class, and what the model said with which confidence."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with RecordWriter(place) as writer:
        for number, (features, label, output, chance) in enumerate(results):
            found = Prediction(output, {output: chance, "other": 1.0 - chance})
            writer.write([Record(number, f"record {number}", features, label, f"tag-{number}")], [found])


def write_rows(folder: Path, rows: Sequence[str], name: str = "rows.csv") -> str:
    """Write one object of evaluation data, and return the URI of its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{row}\n" for row in rows))
    return folder.as_uri()
