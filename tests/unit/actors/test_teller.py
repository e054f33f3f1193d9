"""What an attempt has told beside its steps: in order, whole by the end, and refused where it is no longer wanted."""

from __future__ import annotations

import threading

import pytest

from raymaker.actors.reports import JobReport, ReportRefused
from raymaker.actors.spec import Standing
from raymaker.actors.teller import Teller

SOON_S = 30.0


class Platform:
    """A JobReporter that answers once it may."""

    def __init__(self, refuses: str = "") -> None:
        self.may_answer = threading.Event()
        self.told: list[str] = []
        self._refuses = refuses

    def standing(self, job_name: str, attempt: int) -> Standing:
        raise ReportRefused(f"{job_name} has a later attempt than {attempt}")

    def report(self, report: JobReport) -> None:
        assert self.may_answer.wait(SOON_S)
        if report.phase == self._refuses:
            raise ReportRefused(report.phase)
        self.told.append(report.phase)


def report(phase: str) -> JobReport:
    return JobReport("job", 1, phase, "", 0.0)


def test_steps_are_told_in_their_order_while_others_are_taken() -> None:
    platform = Platform()
    with Teller(platform) as teller:  # type: ignore[arg-type]
        for phase in ("Starting", "Downloading", "Training"):
            teller.tell(report(phase))
        teller.check()
        assert platform.told == []
        platform.may_answer.set()
        teller.settle()
        assert platform.told == ["Starting", "Downloading", "Training"]


def test_all_is_told_by_the_end_though_nobody_waits_for_it() -> None:
    platform = Platform()
    with Teller(platform) as teller:  # type: ignore[arg-type]
        teller.tell(report("Starting"))
        platform.may_answer.set()
    assert platform.told == ["Starting"]


def test_a_refusal_is_heard_of_at_the_next_look_and_at_the_latest_where_all_is_settled() -> None:
    platform = Platform(refuses="Starting")
    platform.may_answer.set()
    with Teller(platform) as teller:  # type: ignore[arg-type]
        teller.tell(report("Starting"))
        teller.tell(report("Downloading"))
        with pytest.raises(ReportRefused):
            teller.settle()
        teller.tell(report("Starting"))
        with pytest.raises(ReportRefused):
            teller.ask("job", 1).result(SOON_S)  # answered after what was told before
        with pytest.raises(ReportRefused, match="Starting"):
            teller.check()
