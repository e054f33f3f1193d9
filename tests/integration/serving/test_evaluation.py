"""Evaluations with real scoring processes: what they come to, and what each kind of trouble is told as."""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from raymaker.actors.errors import EngineAway
from raymaker.actors.runtime.process import ProcessRuntime
from raymaker.actors.site import Site
from raymaker.actors.spec import InstanceType, Resources, ScoringSpec, SourceSpec
from raymaker.actors.storage import ObjectStore, StoreConfig
from raymaker.serving.evaluation.evaluator import Evaluator
from raymaker.serving.evaluation.records import RecordQuery, read_records
from raymaker.serving.evaluation.reports import Phase
from raymaker.serving.evaluation.run import EvaluationRun
from raymaker.serving.evaluation.spec import EvaluationData, EvaluationSpec, ProblemType
from support.evaluations import KeptEvaluation, write_rows
from support.faults import eventually

SERVER = Path(__file__).with_name("evaluated_server.py")
FUNCTION = """
import json, pathlib
rows = [json.loads(line) for line in open("/opt/ml/processing/input/records.jsonl")]
print("judging", len(rows), flush=True)
result = {"worst": max(row["difference"] for row in rows)}
pathlib.Path("/opt/ml/processing/output/evaluation.json").write_text(json.dumps(result))
"""
_numbers = itertools.count(1)


@dataclasses.dataclass
class Trial:
    """Evaluations of one model, whose answers are the rows' first numbers, doubled."""

    site: Site
    folder: Path

    def __post_init__(self) -> None:
        self.runtime = ProcessRuntime(self.site.home)
        for name, content in {
            "code/serve.py": SERVER.read_text(),
            "model/weight.txt": "2",
            "code/train.py": "",
        }.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def spec(self, rows: list[str], **changes: Any) -> EvaluationSpec:
        spec = EvaluationSpec(
            job_name="job",
            job_arn="arn:job",
            number=next(_numbers),
            instance_type=InstanceType("local", Resources(cpus=1)),
            scoring=ScoringSpec(
                source=SourceSpec((self.folder / "code").as_uri(), "train.py"),
                model_uri=(self.folder / "model").as_uri(),
                startup_timeout_s=30,
            ),
            data=EvaluationData(write_rows(self.folder / "data", rows), label="-1"),
            problem=ProblemType.REGRESSION,
            records_uri=(self.folder / "out" / "records.parquet").as_uri(),
        )
        return dataclasses.replace(spec, **changes)

    def source(self, script: str) -> SourceSpec:
        (self.folder / "function").mkdir(exist_ok=True)
        (self.folder / "function" / "judge.py").write_text(script)
        return SourceSpec((self.folder / "function").as_uri(), "judge.py")

    def run(self, rows: list[str], **changes: Any) -> KeptEvaluation:
        kept = KeptEvaluation()
        EvaluationRun(self.spec(rows, **changes), self.site, self.runtime, kept).run()
        assert self.runtime.owned({}) == [], "it left a process"
        assert not any(self.site.evaluations.glob("*")), "it left a folder"
        return kept


@pytest.fixture
def trial(home: Path, tmp_path: Path) -> Trial:
    return Trial(Site(home=home, driver="process", store=StoreConfig(), base_image=""), tmp_path)


def test_a_model_is_asked_for_every_record_and_judged(trial: Trial) -> None:
    kept = trial.run([f"{number},{2 * number + (number == 3)}" for number in range(250)], batch_count=100)
    assert kept.metrics["rmse"] == pytest.approx((1 / 250) ** 0.5)
    assert kept.metrics["latency_p50"] > 0
    assert kept.reports[-1].record_count == 250
    assert [report.phase for report in kept.reports[:2]] == [Phase.STARTING, Phase.SCORING]
    (worst, *_) = read_records(ObjectStore(), (trial.folder / "out" / "records.parquet").as_uri(), RecordQuery())
    assert (worst.input, worst.output, worst.label, worst.difference) == ("3", "6.0", "7.0", 1.0)


def test_the_users_own_metrics_stand_beside_the_known_ones(trial: Trial) -> None:
    kept = trial.run(["1,2", "2,9"], function=trial.source(FUNCTION), metrics=("mae", "worst"))
    assert kept.metrics == {"mae": 2.5, "worst": 5.0}


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (["1,2", "garbage,2"], {}, "record 0 of .* and the 1 after it: .* result 'oops' is no number"),
        (["1,2", "short,2"], {}, "answered 2 records with 1 results"),
        (["refuse,2"], {}, "record 0 of .*: the scoring container answered with status 400: cannot score these rows"),
        (["die,2"], {}, "the scoring container ended: exit code 3.*giving up"),
        (["hang,2"], {"timeout_s": 1.0}, r"did not answer within 1 s \(EvaluationConfig.InvocationTimeoutInSeconds\)"),
        (["1,2", "1"], {}, "record 1 of .* has 1 columns"),
        (["1,high"], {}, "its label 'high' is no number"),
        ([], {}, "holds no record to evaluate with"),
    ],
)
def test_trouble_ends_the_evaluation_with_its_reason(
    trial: Trial, rows: list[str], changes: dict[str, Any], message: str
) -> None:
    assert re.search(message, trial.run(rows, **changes).failure, re.DOTALL)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit('no such luck')", "MetricSource: the script ended with exit code 1.*no such luck"),
        ("pass", r"evaluation.json is not there: the script must write it"),
        (FUNCTION.replace('"worst"', '"rmse"'), "rmse is the name of a metric that there is already"),
        (FUNCTION.replace('max(row["difference"] for row in rows)', '"high"'), "worst is 'high' and must be a finite"),
    ],
)
def test_a_function_that_goes_wrong_is_told(trial: Trial, script: str, message: str) -> None:
    assert re.search(message, trial.run(["1,2"], function=trial.source(script)).failure, re.DOTALL)


def test_a_checkpoint_that_is_gone_is_told(trial: Trial) -> None:
    scoring = dataclasses.replace(trial.spec([]).scoring, checkpoint="epoch-3")
    failure = trial.run(["1,2"], scoring=scoring).failure
    assert "checkpoint epoch-3" in failure
    assert "cannot be had" in failure


def test_one_that_is_stopped_ends_soon_and_says_nothing_more(trial: Trial) -> None:
    kept, scoring = KeptEvaluation(), threading.Event()
    told = kept.report_evaluation
    kept.report_evaluation = lambda report: (told(report), report.phase is Phase.SCORING and scoring.set())[0]  # type: ignore[method-assign]
    evaluator = Evaluator(trial.site, trial.runtime, kept)
    evaluator.evaluate(trial.spec(["hang,2"], timeout_s=600))
    assert scoring.wait(60)
    evaluator.evaluate(None)
    eventually(lambda: trial.runtime.owned({}) == [], "its container is gone")
    evaluator.end()
    assert evaluator.wait(60)
    assert [report.phase for report in kept.reports] == [Phase.STARTING, Phase.SCORING]


def test_an_evaluator_takes_one_evaluation_after_another(trial: Trial) -> None:
    kept = KeptEvaluation()
    evaluator = Evaluator(trial.site, trial.runtime, kept)
    for _ in range(2):
        spec = trial.spec(["1,2", "2,4"])
        evaluator.evaluate(spec)
        evaluator.evaluate(spec)  # told again, it goes on
        eventually(lambda it=spec: (it.number, Phase.COMPLETED) in kept.steps, "it is evaluated")  # type: ignore[misc]
    evaluator.end()
    assert evaluator.wait(60)
    assert [report.phase for report in kept.reports] == [Phase.STARTING, Phase.SCORING, Phase.COMPLETED] * 2
    assert trial.runtime.owned({}) == []


def test_an_evaluator_that_has_lost_a_try_ends_so_that_the_next_is_anothers(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: Any) -> None:
        raise EngineAway("the engine went away")

    monkeypatch.setattr(trial.runtime, "start", lose)
    kept = KeptEvaluation()
    evaluator = Evaluator(trial.site, trial.runtime, kept)
    evaluator.evaluate(trial.spec(["1,2"]))
    assert evaluator.wait(60)
    assert kept.reports[-1].phase is Phase.INTERRUPTED
