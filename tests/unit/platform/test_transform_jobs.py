"""Every legal move of a transform job, and those that are none."""

from __future__ import annotations

import dataclasses

import pytest

from raymaker.actors.reports import FAILURE_REASON_CHARS, Outcome, ReportRefused
from raymaker.platform.transforming import transform_jobs as jobs
from raymaker.platform.transforming.transform_jobs import TransformJobRecord, TransformJobStatus, TransformModel
from raymaker.platform.transitions import MAX_ATTEMPTS, IllegalMove
from raymaker.serving.transform.reports import Finished, Phase, Progress, TransformReport


def new_job(machine_count: int = 1) -> TransformJobRecord:
    request = {"TransformResources": {"InstanceType": "local", "InstanceCount": machine_count}}
    return jobs.create_transform_job("t", "arn:t", "0", request, model=TransformModel("image"), now=1.0)


def started(machine_count: int = 1) -> TransformJobRecord:
    return jobs.start_attempt(new_job(machine_count), 2.0)


def report(
    phase: Phase = Phase.TRANSFORMING,
    progress: Progress | None = None,
    outcome: Outcome | None = None,
    *,
    machine: int = 0,
    attempt: int = 1,
    **facts: object,
) -> TransformReport:
    return TransformReport("t", attempt, machine, phase, "said", 3.0, progress or Progress(), outcome=outcome, **facts)  # type: ignore[arg-type]


def tell(record: TransformJobRecord, *reports: TransformReport) -> TransformJobRecord:
    for number, said in enumerate(reports):
        record = jobs.apply_report(record, said, 10.0 + number)
    return record


def ended(outcome: Outcome, progress: Progress | None = None, **facts: object) -> TransformReport:
    return report(Phase.ENDED, progress, outcome, **facts)  # type: ignore[arg-type]


def test_a_job_goes_from_waiting_to_its_end():
    record = jobs.mark_pending(new_job(), "no room", 1.5)
    assert (record.status, record.message, record.attempt) == ("InProgress", "no room", 0)
    record = jobs.start_attempt(record, 2.0)
    record = tell(record, report(Phase.STARTING), report(progress=Progress(3, 1)))
    record = jobs.apply_report(record, ended(Outcome.COMPLETED, Progress(3, 3)), 12.0)
    assert (record.status, record.attempt, record.failure_reason) == (TransformJobStatus.COMPLETED, 1, None)
    assert (record.started_at, record.ended_at) == (11.0, 12.0)
    assert record.progress == Progress(3, 3)


def test_a_job_whose_objects_failed_says_how_many_and_why():
    failures = tuple(Finished(f"{number}.csv", failure="bad") for number in range(5))
    record = tell(started(), report(finished=failures), ended(Outcome.COMPLETED, Progress(9, 4, 5)))
    assert record.status is TransformJobStatus.FAILED
    assert record.failure_reason == (
        "ClientError: 5 of 9 objects could not be transformed; the other outputs are stored. "
        "0.csv: bad; 1.csv: bad; 2.csv: bad"
    )


def test_a_reason_is_never_longer_than_it_may_be():
    failures = tuple(Finished(f"{number}.csv", failure="x" * 900) for number in range(5))
    record = tell(started(), ended(Outcome.COMPLETED, Progress(9, 4, 5), finished=failures))
    assert len(record.failure_reason or "") <= FAILURE_REASON_CHARS


@pytest.mark.parametrize(
    ("first", "second", "status", "said"),
    [
        (Outcome.COMPLETED, Outcome.COMPLETED, "Completed", None),
        (Outcome.COMPLETED, Outcome.FAILED, "Failed", "ClientError: no image (instance 2 of 2)"),
        (Outcome.STOPPED, Outcome.COMPLETED, "Stopped", None),
        (Outcome.COMPLETED, Outcome.TIMED_OUT, "Stopped", "MaxRuntimeInSeconds was reached with 2 of 4 objects"),
    ],
)
def test_a_job_ends_with_its_last_machine_and_as_the_worst_of_them(first, second, status, said):
    record = tell(started(2), ended(first, Progress(2, 2)))
    assert record.status is TransformJobStatus.IN_PROGRESS
    reason = "ClientError: no image" if second is Outcome.FAILED else None
    record = tell(record, ended(second, Progress(2), machine=1, failure_reason=reason))
    assert record.status == status
    assert record.failure_reason is None if said is None else (record.failure_reason or "").startswith(said)


def test_machines_are_told_together():
    record = tell(started(2), report(progress=Progress(2, 1)), report(progress=Progress(3, 1), machine=1))
    assert record.progress == Progress(5, 2)
    assert record.message.startswith("Transforming on 2 instances: 2 of 5 objects")


def test_a_lost_attempt_is_fenced_and_the_next_knows_what_was_through():
    record = tell(started(), report(progress=Progress(4, 2)), report(Phase.INTERRUPTED))
    assert (record.status, record.attempt, record.progress) == ("InProgress", 2, Progress(4, 2))
    assert record.started_at == 10.0
    with pytest.raises(ReportRefused, match="attempt 1 .* is not the job's: attempt 2 is"):
        tell(record, report())
    for attempt in range(2, MAX_ATTEMPTS + 1):
        record = tell(record, report(Phase.INTERRUPTED, attempt=attempt))
    assert record.status is TransformJobStatus.FAILED
    assert record.failure_reason == f"InternalServerError: attempt 3 of {MAX_ATTEMPTS} was lost: said"


def test_a_stop_ends_a_waiting_job_at_once_and_a_running_one_by_way_of_stopping():
    assert jobs.request_stop(new_job(), 2.0).status is TransformJobStatus.STOPPED
    record = jobs.request_stop(started(), 3.0)
    assert (record.status, record.stop_requested_at) == (TransformJobStatus.STOPPING, 3.0)
    assert jobs.request_stop(record, 4.0) == record
    record = tell(record, report())
    assert record.message == "Stopping the transform job"
    assert tell(record, ended(Outcome.STOPPED)).status is TransformJobStatus.STOPPED
    assert tell(record, ended(Outcome.COMPLETED)).status is TransformJobStatus.COMPLETED
    assert tell(record, report(Phase.INTERRUPTED)).status is TransformJobStatus.STOPPED


def test_the_end_is_one():
    record = tell(started(), ended(Outcome.COMPLETED))
    assert tell(record, ended(Outcome.COMPLETED)) == record
    for late in (ended(Outcome.FAILED), report()):
        with pytest.raises(ReportRefused, match="has ended"):
            tell(record, late)
    assert jobs.lose_attempt(record, 1, "late", 9.0) == record
    for move in (jobs.start_attempt, jobs.request_stop):
        with pytest.raises(IllegalMove):
            move(record, 9.0)


def test_a_last_report_that_comes_twice_changes_nothing():
    failed = (Finished("a.csv", failure="bad"),)
    once = tell(started(2), ended(Outcome.COMPLETED, Progress(2, 1, 1), finished=failed))
    twice = tell(once, ended(Outcome.COMPLETED, Progress(2, 1, 1), finished=failed))
    assert dataclasses.replace(twice, modified_at=once.modified_at) == once


def test_news_are_told_once_each():
    record = new_job(2)
    kinds = []
    moves = [
        lambda job: jobs.mark_pending(job, "no room", 1.0),
        lambda job: jobs.start_attempt(job, 2.0),
        lambda job: tell(job, report(Phase.STARTING)),
        lambda job: tell(job, report(progress=Progress(100))),
        lambda job: tell(job, report(progress=Progress(100), machine=1)),
        lambda job: tell(job, report(progress=Progress(100, 5))),
        lambda job: tell(job, report(progress=Progress(100, 20))),
        lambda job: tell(job, report(progress=Progress(100, 25))),
        lambda job: tell(job, report(Phase.INTERRUPTED)),
        lambda job: jobs.request_stop(job, 9.0),
    ]
    for move in moves:
        moved = move(record)
        kinds += [kind for kind, _ in jobs.news(record, moved)]
        record = moved
    assert kinds == ["Pending", "Starting", "Transforming", "Progress", "Restarting", "Stopping"]
