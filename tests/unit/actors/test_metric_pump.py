"""Numbers that containers tell: kept apart in time, bounded, and passed on to the last."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from raymaker.actors import metric_pump
from raymaker.actors.metric_pump import MetricBuffer, MetricPump
from raymaker.actors.reports import Metric, ReportRefused
from raymaker.actors.spec import InstanceType, Resources, TrainingSpec
from support.supervised import KeptReports

SPEC = TrainingSpec("job", "arn", "r", 3, InstanceType("local", Resources()), output_uri="file:///tmp/out")


def test_numbers_said_at_one_moment_have_times_of_their_own() -> None:
    buffer = MetricBuffer(now=lambda: 100.0)
    buffer.put(0, {"loss": 1.0, "acc": 0.5}, 7)
    buffer.put(1, {"loss": 2.0}, None)
    taken, lost_count = buffer.take()
    assert [(it.name, it.value, it.step, it.rank) for it in taken] == [
        ("loss", 1.0, 7, 0),
        ("acc", 0.5, 7, 0),
        ("loss", 2.0, None, 1),
    ]
    assert len({it.time for it in taken}) == 3
    assert taken[-1].time == pytest.approx(100.0, abs=1e-4)
    assert (lost_count, buffer.take()) == (0, ([], 0))


def test_what_waits_is_bounded_and_what_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_pump, "MOST_KEPT", 2)
    buffer = MetricBuffer()
    buffer.put(0, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, None)
    taken, lost_count = buffer.take()
    assert ([it.name for it in taken], lost_count) == (["a", "b"], 2)


def test_a_pump_passes_on_what_came_last_and_tells_of_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_pump, "MOST_KEPT", 1500)
    buffer, kept = MetricBuffer(), KeptReports()
    for number in range(1502):
        buffer.put(0, {"n": float(number)}, number)
    with MetricPump(buffer, SPEC, kept, lambda kind, message: kept.notes.append((kind, message))):
        pass
    assert [it.step for it in kept.numbers] == list(range(1500))
    assert kept.notes == [("MetricsLost", "2 numbers came faster than they could be stored, and were lost")]


def test_numbers_that_nobody_wants_any_more_end_nothing() -> None:
    class Gone(KeptReports):
        def metrics(self, job_name: str, attempt: int, metrics: Sequence[Metric]) -> None:
            raise ReportRefused("a later attempt has the job")

    buffer = MetricBuffer()
    with MetricPump(buffer, SPEC, Gone(), lambda _kind, _message: None):
        buffer.put(0, {"n": 1.0}, None)
    assert buffer.take() == ([], 0)
