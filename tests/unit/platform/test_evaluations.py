"""Every move of an evaluation, and what it sets off."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from raymaker.actors.reports import ReportRefused, Source
from raymaker.platform.evaluating import evaluations as moves
from raymaker.platform.evaluating.evaluations import EvaluationRecord, EvaluationStatus, Trigger
from raymaker.platform.evaluating.quality_alarms import fired
from raymaker.platform.phases import IllegalMove
from raymaker.platform.transitions import MAX_ATTEMPTS
from raymaker.serving.evaluation.reports import EvaluationReport, Phase

NOW = 1_000.0
NEW = EvaluationRecord("job", 1, {"ProblemType": "Regression"}, Trigger.CHECKPOINT, NOW, "epoch-7.pt", NOW)


def running() -> EvaluationRecord:
    return moves.begin_attempt(moves.start(NEW, NOW), NOW)


def report(phase: Phase, message: str = "said", attempt: int = 1, **facts: Any) -> EvaluationReport:
    return EvaluationReport("job", 1, attempt, phase, message, NOW, **facts)


def test_it_waits_begins_and_completes_with_metrics_of_its_job() -> None:
    waiting = moves.mark_pending(NEW, "no room")
    assert waiting.message == "no room"
    assert moves.mark_pending(waiting, "no room") is waiting
    told = report(Phase.COMPLETED, "Evaluated", record_count=9, metrics={"rmse": 0.5}, distributions={"Outputs": {}})
    done = moves.apply_report(running(), told, NOW + 5)
    assert (done.status, done.record_count, done.ended_at) == (EvaluationStatus.COMPLETED, 9, NOW + 5)
    (metric,) = done.as_metrics()
    assert (metric.name, metric.value, metric.step, metric.source) == ("evaluation:rmse", 0.5, 7, Source.EVALUATION)
    assert moves.apply_report(done, told, NOW + 9) is done, "a repeat changes nothing"
    with pytest.raises(ReportRefused):
        moves.apply_report(done, report(Phase.FAILED), NOW)


def test_it_fails_with_the_reason() -> None:
    failed = moves.apply_report(running(), report(Phase.FAILED, "wrong columns"), NOW)
    assert (failed.status, failed.failure_reason) == (EvaluationStatus.FAILED, "wrong columns")
    assert moves.news(running(), failed) == [
        ("EvaluationFailed", "evaluation 1 of checkpoint epoch-7.pt failed: wrong columns")
    ]


def test_a_lost_machine_is_made_again_a_few_times_and_its_reports_are_fenced() -> None:
    record = moves.apply_report(running(), report(Phase.INTERRUPTED), NOW)
    assert record.status is EvaluationStatus.IN_PROGRESS
    again = moves.begin_attempt(record, NOW)
    with pytest.raises(ReportRefused, match="try 1 .* does not count: try 2 does"):
        moves.apply_report(again, report(Phase.SCORING), NOW)
    for _ in range(MAX_ATTEMPTS):
        again = moves.begin_attempt(again, NOW) if not again.status.ended else again
    assert (again.status, again.attempt) == (EvaluationStatus.FAILED, MAX_ATTEMPTS)
    with pytest.raises(ReportRefused):
        moves.begin_attempt(again, NOW)


def test_one_that_waits_may_look_at_a_newer_checkpoint_and_one_that_runs_may_not() -> None:
    assert moves.retarget(NEW, "epoch-8.pt", NOW + 1).checkpoint == "epoch-8.pt"
    for move in (
        lambda record: moves.retarget(record, "x", NOW),
        lambda record: moves.start(record, NOW),
        lambda record: moves.mark_pending(record, "x"),
    ):
        with pytest.raises(IllegalMove, match="it is InProgress|is InProgress"):
            move(running())


def test_it_can_be_stopped_until_it_has_ended() -> None:
    for record in (NEW, running()):
        stopped = moves.stop(record, NOW)
        assert stopped.status is EvaluationStatus.STOPPED
        with pytest.raises(IllegalMove, match="cannot be stopped: it is Stopped"):
            moves.stop(stopped, NOW)
        with pytest.raises(ReportRefused):
            moves.apply_report(stopped, report(Phase.COMPLETED, attempt=stopped.attempt), NOW)


@pytest.mark.parametrize(("name", "step"), [("epoch-7.pt", 7), ("ckpt_0012", 12), ("final", None), (None, None)])
def test_a_step_is_the_number_at_the_end_of_a_name(name: str | None, step: int | None) -> None:
    assert dataclasses.replace(NEW, checkpoint=name).step == step


@pytest.mark.parametrize(
    ("alarm", "values", "message"),
    [
        ({"MetricName": "accuracy", "LessThan": 0.5}, [0.9, 0.4], "accuracy is 0.4, less than 0.5"),
        ({"MetricName": "accuracy", "LessThan": 0.5}, [0.4, 0.5], None),
        ({"MetricName": "rmse", "GreaterThan": 2.0}, [1.0, 2.5], "rmse is 2.5, greater than 2"),
        ({"MetricName": "rmse", "GreaterThan": 2.0}, [9.0, 2.0], None),
        ({"MetricName": "accuracy", "Patience": 2}, [0.5, 0.9, 0.8, 0.9], "0.9 at best and has not improved in 2"),
        ({"MetricName": "accuracy", "Patience": 2}, [0.5, 0.9, 0.8, 0.91], None),
        ({"MetricName": "accuracy", "Patience": 2}, [0.9, 0.8], None),
        ({"MetricName": "log_loss", "Patience": 2}, [1.0, 1.1, 1.2], "was 1 at best"),
        ({"MetricName": "log_loss", "Patience": 2}, [1.0, 1.1, 0.9], None),
        ({"MetricName": "accuracy", "Patience": 2, "MinimumChange": 0.05}, [0.9, 0.91, 0.93], "has not improved"),
        ({"MetricName": "accuracy", "Patience": 2, "MinimumChange": 0.05}, [0.9, 0.91, 0.96], None),
        ({"MetricName": "accuracy", "Patience": 1}, [], None),
    ],
)
def test_alarms(alarm: dict[str, Any], values: list[float], message: str | None) -> None:
    said = fired(alarm, [{alarm["MetricName"]: value} for value in values])
    assert said is None if message is None else message in str(said)


def test_evaluations_that_do_not_tell_the_metric_set_nothing_off() -> None:
    alarm = {"MetricName": "auc", "Patience": 1}
    assert fired(alarm, [{"auc": 0.9}, {"accuracy": 1.0}]) is None
    assert fired(alarm, [{"auc": 0.9}, {"accuracy": 1.0}, {"auc": 0.8}]) is not None
