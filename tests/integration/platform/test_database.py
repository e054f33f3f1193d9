"""The database room on both databases: durable, guarded, patient, and the same answers from either."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text, update

from raymaker.actors.reports import JobReport, Metric, Outcome, ReportRefused, Source, UpdateReport, UpdateStage
from raymaker.actors.spec import SourceSpec
from raymaker.platform import transitions
from raymaker.platform.database import events, hosting, line, metrics, notices, tags, training, transforms, updates
from raymaker.platform.database.engine import BUSY_TIMEOUT_S, Database
from raymaker.platform.database.metrics import MetricQuery
from raymaker.platform.database.migrations.upgrade import SchemaTooNew
from raymaker.platform.database.schema import endpoints, metadata
from raymaker.platform.database.statements import Listing
from raymaker.platform.errors import ConflictException, ServiceUnavailable, ValidationException
from raymaker.platform.phases import IllegalMove
from raymaker.platform.pools.warm_pool import WarmPoolStatus
from raymaker.platform.records import (
    Deployment,
    EndpointConfigRecord,
    EndpointStatus,
    ModelRecord,
    ResolvedContainer,
    ResolvedVariant,
    TrainingJobRecord,
    TrainingJobStatus,
)
from raymaker.platform.transforming import transform_jobs
from raymaker.platform.transforming.transform_jobs import TransformModel

ACCOUNT = "000000000000"
ODD = "half a character \ud800, a NUL \0, and \N{SNOWMAN}"
CLEAN = "half a character ?, a NUL \N{REPLACEMENT CHARACTER}, and \N{SNOWMAN}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of either kind."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.dispose()


def new_job(name: str, created_at: float = 1.0, **request) -> TrainingJobRecord:
    return transitions.create_training_job(name, f"arn:{name}", ACCOUNT, request, created_at)


def add_job(database: Database, name: str, created_at: float = 1.0, **request) -> TrainingJobRecord:
    record = new_job(name, created_at, **request)
    with database.transaction() as connection:
        assert training.insert_training_job(connection, record)
    return record


def find_job(database: Database, name: str) -> TrainingJobRecord | None:
    with database.reading() as connection:
        return training.find_training_job(connection, name)


def mark_pending(database, name, reason, now):
    with database.transaction() as connection:
        training.mark_pending(connection, name, reason, now)


def count_before(database, job):
    with database.reading() as connection:
        return line.count_before(connection, job)


def report(name: str, phase: str, outcome: Outcome | None = None, attempt: int = 1, **facts) -> JobReport:
    return JobReport(name, attempt, phase, facts.pop("message", "said"), 5.0, outcome=outcome, **facts)


def event_kinds(database: Database, subject: str) -> list[str]:
    with database.reading() as connection:
        return [event.kind for event in events.list_events(connection, subject, 100, None)[0]]


def test_the_migrations_make_exactly_the_schema(database):
    with database.transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_many_may_migrate_at_once(database_url):
    databases = [Database(database_url) for _ in range(6)]
    with ThreadPoolExecutor(len(databases)) as pool:
        for done in [pool.submit(database.migrate) for database in databases]:
            done.result()
    assert find_job(databases[0], "nobody") is None
    for database in databases:
        database.dispose()


def test_a_new_file_that_somebody_holds_is_waited_for(home):
    """Longer than SQLite itself waits: the switch to write-ahead mode comes before any transaction of ours."""
    database = Database(f"sqlite:///{home / 'raymaker.sqlite3'}")
    with contextlib.closing(sqlite3.connect(home / "raymaker.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE").close()
        with ThreadPoolExecutor(1) as pool:
            migrated = pool.submit(database.migrate)
            time.sleep(1.5 * BUSY_TIMEOUT_S)
            other.execute("COMMIT").close()
            migrated.result()
    assert find_job(database, "nobody") is None
    database.dispose()


def test_processes_may_migrate_at_once(database_url):
    script = "import sys; from raymaker.platform.database.engine import Database; Database(sys.argv[1]).migrate()"
    started = [subprocess.Popen([sys.executable, "-c", script, database_url]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]


def test_a_schema_of_a_later_version_is_refused(database):
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew, match="use the raymaker that wrote it"):
        database.migrate()


def test_a_job_comes_back_as_it_was_written(database):
    record = add_job(database, "job", 1.25, HyperParameters={"odd": ODD}, deep=[{"a": None}, 1.5])
    assert find_job(database, "job") == record
    assert find_job(database, "JOB") is None


def test_a_change_of_a_job_comes_back_as_it_was_written_with_all_kinds_of_numbers(database):
    request = {"ResourceConfig": {}, "AlgorithmSpecification": {}, "HyperParameters": {}}
    add_job(database, "job", **request)
    training.start_attempt(database, "job", 2.0)
    training.apply_report(database, report("job", "Training"), 3.0)
    numbers = [Metric(name, value, 3.5) for name, value in (("a", math.nan), ("b", math.inf), ("c", 1.5))]
    metrics.insert_metrics(database, "job", 1, numbers)
    with database.transaction() as connection:
        asked = updates.request_update(connection, "job", {"HyperParameters": {"rate": "1"}}, "somebody", 4.0)
    assert updates.apply_update_report(database, UpdateReport("job", 1, 1, UpdateStage.FAILED, ODD), 5.0)
    found = find_job(database, "job")
    assert (found.updates[0].failure_reason, found.version) == (CLEAN, asked.version + 1)
    before = found.updates[0].metrics_before
    assert (math.isnan(before["a"]), before["b"], before["c"]) == (True, math.inf, 1.5)
    with database.transaction() as connection:
        updates.request_update(connection, "job", {"HyperParameters": {"rate": "2"}}, "somebody", 6.0)
    assert updates.apply_update_report(database, UpdateReport("job", 1, 2, UpdateStage.APPLIED, heard_by=(1,)), 7.0)
    metrics.insert_metrics(database, "job", 1, [Metric(name, 9.0, 8.0) for name in "abc"])
    updates.measure(database, find_job(database, "job"), 9.0)
    update = find_job(database, "job").updates[1]
    assert (update.metrics_after, update.heard_by) == ({"a": 9.0, "b": 9.0, "c": 9.0}, (1,))
    assert event_kinds(database, "arn:job")[-5:] == [
        "UpdateRequested",
        "UpdateFailed",
        "UpdateRequested",
        "UpdateApplied",
        "UpdateMeasured",
    ]


def test_a_name_is_taken_once_and_the_first_record_stays(database):
    add_job(database, "job", 1.0)
    with database.transaction() as connection:
        assert not training.insert_training_job(connection, new_job("job", 2.0))
    assert find_job(database, "job").created_at == 1.0


def test_a_transaction_that_raises_leaves_nothing(database):
    with contextlib.suppress(ZeroDivisionError), database.transaction() as connection:
        training.insert_training_job(connection, new_job("job"))
        1 / 0  # noqa: B018 - something goes wrong
    assert find_job(database, "job") is None


def test_a_write_over_a_version_that_is_gone_is_refused(database):
    old = add_job(database, "job")
    training.start_attempt(database, "job", 2.0)
    with pytest.raises(ConflictException, match="somebody else"), database.transaction() as connection:
        training.save_training_job(connection, dataclasses.replace(old, failure_reason="late"))
    assert find_job(database, "job").failure_reason is None


def test_a_job_goes_its_way_by_reports_and_each_step_is_an_event(database):
    record = add_job(database, "job")
    mark_pending(database, "job", "no room", 2.0)
    waiting = find_job(database, "job")
    mark_pending(database, "job", "no room", 3.0)
    assert find_job(database, "job") == waiting
    assert training.start_attempt(database, "job", 4.0).attempt == 1
    training.apply_report(database, report("job", "Training", image_digest="sha256:1", message=ODD), 5.0)
    training.apply_report(database, report("job", "Uploading"), 6.0)
    training.apply_report(database, report("job", "Completed", Outcome.COMPLETED, model_uri="s3://b/m"), 7.0)
    ended = find_job(database, "job")
    assert (ended.status, ended.model_uri, ended.image_digest) == (TrainingJobStatus.COMPLETED, "s3://b/m", "sha256:1")
    assert event_kinds(database, record.arn) == ["Pending", "Starting", "Training", "Uploading", "Completed"]
    with database.reading() as connection:
        assert training.find_training_job_by_model(connection, "s3://b/m") == ended
        assert training.find_training_job_by_model(connection, "s3://b/other") is None


def test_a_failure_is_kept_whatever_characters_it_has(database):
    add_job(database, "job")
    training.start_attempt(database, "job", 2.0)
    training.apply_report(database, report("job", "Failed", Outcome.FAILED, failure_reason=ODD), 3.0)
    assert find_job(database, "job").failure_reason == CLEAN


def test_a_lost_attempt_is_fenced_and_told_as_an_event(database):
    record = add_job(database, "job")
    training.start_attempt(database, "job", 2.0)
    assert training.lose_attempt(database, "job", 1, "machine gone", 3.0).attempt == 2
    with pytest.raises(ReportRefused, match="attempt 2 is"):
        training.apply_report(database, report("job", "Completed", Outcome.COMPLETED), 4.0)
    training.apply_report(database, report("job", "Training", attempt=2), 5.0)
    assert event_kinds(database, record.arn) == ["Starting", "Restarting", "Training"]


def test_each_start_of_a_gang_is_kept_told_as_an_event_and_fences_the_one_before(database):
    record = add_job(database, "job")
    training.start_attempt(database, "job", 2.0)
    assert training.begin_start(database, "job", 1, "on 2 instances", 3.0) == 1
    training.apply_report(database, report("job", "Training", start=1), 4.0)
    assert training.begin_start(database, "job", 1, "on 2 instances", 5.0) == 2
    assert find_job(database, "job").start == 2
    with pytest.raises(ReportRefused, match="start 2 is the job's"):
        training.apply_report(database, report("job", "Completed", Outcome.COMPLETED, start=1), 6.0)
    with pytest.raises(ReportRefused, match="attempt 1 is"):
        training.begin_start(database, "job", 2, "on 2 instances", 6.0)
    with pytest.raises(ReportRefused, match="there is no training job nobody"):
        training.begin_start(database, "nobody", 1, "on 2 instances", 6.0)
    events.record_job_event(database, "job", 1, "CheckpointSyncFailed", ODD, now=7.0)
    assert event_kinds(database, record.arn) == [
        *("Starting", "Starting", "Training", "Restarting", "CheckpointSyncFailed")
    ]


def test_of_many_that_begin_a_start_at_once_each_gets_its_own_number(database):
    add_job(database, "job")
    training.start_attempt(database, "job", 2.0)
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda _: training.begin_start(database, "job", 1, "go", 3.0), range(8)))
    assert sorted(numbers) == list(range(1, 9))


def test_what_is_kept_of_a_job_goes_to_one_of_many_that_want_it(database):
    for name in ("kept", *"abcd"):
        add_job(database, name, ResourceConfig={"InstanceType": "local", "KeepAlivePeriodInSeconds": 60})
    training.start_attempt(database, "kept", 2.0)
    training.apply_report(database, report("kept", "Completed", Outcome.COMPLETED), 4.0)
    (kept,) = training.live_warm_pools(database)
    assert (kept, kept.warm_pool.status) == (find_job(database, "kept"), WarmPoolStatus.AVAILABLE)
    (same,) = training.live_warm_pools(database, {"kept": kept})
    assert same is kept

    def take(name):
        with contextlib.suppress(IllegalMove):
            return training.start_on_pool(database, name, "kept", 5.0).warm_pool
        return None

    with ThreadPoolExecutor(4) as threads:
        taken = dict(zip("abcd", threads.map(take, "abcd"), strict=True))
    (winner,) = (name for name, pool in taken.items() if pool is not None)
    assert find_job(database, "kept").warm_pool.reused_by == winner
    assert [job.name for job in training.live_warm_pools(database)] == [winner]
    assert taken[winner].pool_id == kept.warm_pool.pool_id
    assert all(find_job(database, name).is_waiting for name in taken if name != winner)


def test_what_the_first_schema_held_is_there_after_an_upgrade(database_url):
    """Jobs have begun no start, and endpoints have one variant of one container."""
    database = Database(database_url)
    database.migrate()
    record = add_job(database, "job")
    container = ResolvedContainer(image="i", source=SourceSpec("file:///code", "go.sh"), environment={"A": "b"})
    request = {"VariantName": "v", "InitialInstanceCount": 3, "InitialVariantWeight": 0.5}
    deployment = Deployment("c", (ResolvedVariant(request, "m", (container,), weight=0.5, instance_count=3),))
    created = transitions.create_endpoint("e", "arn:e", ACCOUNT, deployment, 1.0)
    served = transitions.endpoint_healthy(created, 1, {"v": 2}, 2.0)
    with database.transaction() as connection:
        assert hosting.insert_endpoint(connection, served)
        go_back_to_the_first_schema(connection)
    database.migrate()
    assert find_job(database, "job") == record
    assert hosting.active_endpoints(database) == [served]
    database.dispose()


def go_back_to_the_first_schema(connection: Connection) -> None:
    """Undo by hand what the migrations since have done, to the endpoint `e` above too."""
    old = {
        "config_name": "c",
        "model_name": "m",
        "variant": {"VariantName": "v", "InitialInstanceCount": 3, "InitialVariantWeight": 0.5},
        "image": "i",
        "source": {"uri": "file:///code", "entry_point": "go.sh", "base_image": None},
        "model_uri": None,
        "environment": {"A": "b"},
    }
    others = ("evaluations", "endpoint_activity", "async_invocations", "notices", "transform_objects", "transform_jobs")
    for later in others:
        connection.execute(text(f"DROP TABLE {later}"))
    connection.execute(text("DROP INDEX ix_training_jobs_warm_pool"))
    changes = ("start", "revision", "restart_revision", "move_count", "deletes_model", "updates")
    for column in (*changes, "warm_pool", "warm_pool_status"):
        connection.execute(text(f"ALTER TABLE training_jobs DROP COLUMN {column}"))
    connection.execute(text("ALTER TABLE endpoints ADD COLUMN running_count INTEGER NOT NULL DEFAULT 2"))
    connection.execute(text("ALTER TABLE endpoints DROP COLUMN running_counts"))
    for column in ("stage", "sleep", "wanted_counts", "deployment_config", "rollout"):
        connection.execute(text(f"ALTER TABLE endpoints DROP COLUMN {column}"))
    for column in ("step", "rank", "source"):
        connection.execute(text(f"ALTER TABLE metrics DROP COLUMN {column}"))
    connection.execute(update(endpoints).values(desired=old, deployed=old))
    connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))


def test_a_report_of_a_job_that_is_gone_is_refused(database):
    with pytest.raises(ReportRefused, match="there is no training job nobody"):
        training.apply_report(database, report("nobody", "Training"), 1.0)


def test_the_last_report_may_come_twice(database):
    add_job(database, "job")
    training.start_attempt(database, "job", 2.0)
    last = report("job", "Completed", Outcome.COMPLETED)
    training.apply_report(database, last, 3.0)
    ended = find_job(database, "job")
    training.apply_report(database, last, 4.0)
    assert find_job(database, "job") == ended


def test_unfinished_jobs_are_told_oldest_first(database):
    for number, name in enumerate(["c", "a", "b", "done"]):
        add_job(database, name, float(number))
    training.start_attempt(database, "done", 5.0)
    training.apply_report(database, report("done", "Completed", Outcome.COMPLETED), 6.0)
    assert [job.name for job in training.unfinished_training_jobs(database)] == ["c", "a", "b"]


def test_of_unfinished_jobs_only_those_are_read_that_changed(database):
    for number in range(600):
        add_job(database, f"job-{number:03}", float(number))
    known = {job.name: job for job in training.unfinished_training_jobs(database)}
    mark_pending(database, "job-007", "no room", 1000.0)
    with database.transaction() as connection:
        training.delete_training_job(connection, known["job-001"])
        training.delete_training_job(connection, known["job-002"])
    add_job(database, "job-002", 2000.0)  # another of its name, at the same version
    found = training.unfinished_training_jobs(database, known)
    assert [job.name for job in found] == [*(name for name in known if name not in {"job-001", "job-002"}), "job-002"]
    assert [job.name for job in found if job is not known[job.name]] == ["job-007", "job-002"]
    assert (found[5].message, found[-1].created_at) == ("no room", 2000.0)


def test_a_place_in_line_counts_the_jobs_of_the_account_that_wait_before(database):
    jobs = [new_job(name, created_at) for name, created_at in [("b", 1.0), ("a", 1.0), ("c", 2.0), ("d", 4.0)]]
    jobs.append(dataclasses.replace(new_job("other", 0.5), account="1"))
    scored = transform_jobs.create_transform_job("t", "arn:t", ACCOUNT, {}, model=TransformModel("image"), now=3.0)
    with database.transaction() as connection:
        for job in jobs:
            assert training.insert_training_job(connection, job)
            training.mark_pending(connection, job.name, "no room", 5.0)
        assert transforms.insert_transform_job(connection, scored)
    assert [count_before(database, job) for job in (*jobs, scored)] == [1, 0, 2, 4, 0, 3]
    training.start_attempt(database, "a", 6.0)
    assert [count_before(database, job) for job in (*jobs[2:4], scored)] == [1, 3, 2]


def test_of_two_that_move_a_job_at_once_one_wins_and_the_end_is_one(database):
    """Many threads report different ends of the same attempt: one is taken, every other one is refused."""
    add_job(database, "job")
    training.start_attempt(database, "job", 2.0)
    ends = [Outcome.COMPLETED, Outcome.FAILED, Outcome.STOPPED, Outcome.TIMED_OUT]
    gate = threading.Barrier(len(ends))

    def end(outcome: Outcome) -> Outcome | None:
        gate.wait()
        try:
            training.apply_report(database, report("job", outcome.value, outcome), 3.0)
        except ReportRefused:
            return None
        return outcome

    with ThreadPoolExecutor(len(ends)) as pool:
        winners = [outcome for outcome in pool.map(end, ends) if outcome is not None]
    assert len(winners) == 1
    assert find_job(database, "job").secondary == winners[0].value
    assert event_kinds(database, "arn:job").count(winners[0].value) == 1


def test_moves_at_once_are_all_kept(database):
    """Forty messages from four threads: each write is over the one before, so the version counts them all."""
    add_job(database, "job")

    def tell(thread: int) -> None:
        for number in range(10):
            mark_pending(database, "job", f"reason {number} of thread {thread}", 2.0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tell, range(4)))
    assert find_job(database, "job").version == 1 + 40


def test_one_name_asked_for_by_many_is_given_to_one(database):
    def create(number: int) -> bool:
        with database.transaction() as connection:
            return training.insert_training_job(connection, new_job("job", float(number)))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


def list_names(database: Database, **asked) -> list[str]:
    """Go through all pages of seven."""
    names: list[str] = []
    listing = Listing(limit_count=7, **asked)
    while True:
        with database.reading() as connection:
            records, token = training.list_training_jobs(connection, listing)
        names += [record.name for record in records]
        if token is None:
            return names
        listing = dataclasses.replace(listing, token=token)


@pytest.fixture
def five_hundred(database: Database) -> Database:
    """500 jobs, in groups of five that were created at the same moment; every fourth has ended."""
    with database.transaction() as connection:
        for number in range(500):
            record = new_job(f"{'Job' if number % 2 else 'job'}-{number:03}", float(number // 5))
            if number % 4 == 0:
                record = dataclasses.replace(record, status=TrainingJobStatus.COMPLETED)
            training.insert_training_job(connection, record)
    return database


def test_pages_hold_every_record_once_in_every_order(five_hundred):
    with five_hundred.reading() as connection:
        everyone = training.list_training_jobs(connection, Listing(limit_count=500))[0]
    by = {
        "Name": lambda job: (job.name,),
        "CreationTime": lambda job: (job.created_at, job.name),
        "Status": lambda job: (job.status, job.name),
    }
    for sort_by, key in by.items():
        for descending in (False, True):
            expected = [job.name for job in sorted(everyone, key=key, reverse=descending)]
            assert list_names(five_hundred, sort_by=sort_by, descending=descending) == expected


def test_filters_hold_on_every_page(five_hundred):
    assert len(list_names(five_hundred, status="Completed")) == 125
    assert list_names(five_hundred, name_contains="JOB-49") == [
        name for name in list_names(five_hundred) if "-49" in name
    ]
    assert list_names(five_hundred, name_contains="%") == list_names(five_hundred, name_contains="_") == []
    assert len(list_names(five_hundred, created_after=10.0, created_before=12.0)) == 5
    assert len(list_names(five_hundred, modified_after=97.0)) == 10
    assert len(list_names(five_hundred, modified_before=1.0)) == 5


def test_pages_stay_right_while_jobs_come_and_go(five_hundred):
    with five_hundred.reading() as connection:
        first, token = training.list_training_jobs(connection, Listing(limit_count=7))
    add_job(five_hundred, "aaa-early", 0.0)
    with five_hundred.transaction() as connection:
        training.delete_training_job(connection, first[-1])
    with five_hundred.reading() as connection:
        second, _ = training.list_training_jobs(connection, Listing(limit_count=7, token=token))
    undisturbed = [name for name in list_names(five_hundred) if name != "aaa-early"]
    assert [job.name for job in second] == undisturbed[6:13]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "W10=",
        "WyJDcmVhdGlvblRpbWUiLGZhbHNlLE5hTiwiYSJd",
        "WyJDcmVhdGlvblRpbWUiLGZhbHNlLDEuMCwiXHUwMDAwIl0=",
        "W" * 9000,
    ],
)
def test_a_bad_token_is_an_error_that_names_it(database, token):
    with pytest.raises(ValidationException, match="NextToken"), database.reading() as connection:
        training.list_training_jobs(connection, Listing(token=token))
    with pytest.raises(ValidationException, match="NextToken"), database.reading() as connection:
        events.list_events(connection, "arn", 5, token)


def test_metrics_are_kept_once_with_all_their_kinds_of_numbers(database):
    add_job(database, "job")
    said = [Metric("loss", math.nan, 1.0), Metric("loss", math.inf, 2.0), Metric("a\0c", -0.5, 1.0)]
    metrics.insert_metrics(database, "job", 1, said)
    metrics.insert_metrics(database, "job", 1, [*said, Metric("loss", 0.25, 3.0)])
    metrics.insert_metrics(database, "nobody", 1, said)
    metrics.insert_metrics(database, "job", 1, [])
    with database.reading() as connection:
        found, token = metrics.list_metrics(connection, MetricQuery("job", "loss"), 100, None)
        final = metrics.final_metrics(connection, "job")
    assert token is None
    assert [repr(metric.value) for metric in found] == ["nan", "inf", "0.25"]
    assert [(metric.name, metric.value) for metric in final] == [("a\N{REPLACEMENT CHARACTER}c", -0.5), ("loss", 0.25)]


def test_what_containers_use_is_told_only_where_it_is_asked_for(database):
    add_job(database, "job")
    use = Metric("CPUUtilization", 90.0, 1.0, rank=0, source=Source.RESOURCES)
    judged = Metric("evaluation:f1", 0.5, 2.0, step=7, source=Source.EVALUATION)
    metrics.insert_metrics(database, "job", 1, [use, Metric("loss", 0.5, 1.0), judged])
    with database.reading() as connection:
        final = [metric.name for metric in metrics.final_metrics(connection, "job")]
        everything = [metric.name for metric in metrics.final_metrics(connection, "job", with_use=True)]
        first = [metric.name for metric in metrics.first_metrics(connection, "job", 0.0)]
        found, _ = metrics.list_metrics(connection, MetricQuery("job", source="Resources"), 10, None)
        kinds, _ = metrics.list_metrics(connection, MetricQuery("job"), 10, None)
    assert final == first == ["evaluation:f1", "loss"]
    assert everything == ["CPUUtilization", "evaluation:f1", "loss"]
    assert [(metric.name, metric.rank) for metric in found] == [("CPUUtilization", 0)]
    assert [metric.source for metric in kinds] == [Source.RESOURCES, Source.LOG, Source.EVALUATION]


def test_a_metrics_step_and_rank_are_kept_where_they_are_known(database):
    add_job(database, "job")
    said = [Metric("loss", 1.0, 1.0, step=2**40, rank=3), Metric("loss", 2.0, 2.0)]
    metrics.insert_metrics(database, "job", 1, said)
    with database.reading() as connection:
        found, _ = metrics.list_metrics(connection, MetricQuery("job"), 10, None)
    assert [(it.step, it.rank) for it in found] == [(2**40, 3), (None, None)]


def test_metrics_are_summed_up_by_period_within_a_range(database):
    add_job(database, "job")
    said = [Metric("loss", float(number), 100 + number / 2) for number in range(20)]
    odd = [Metric("loss", math.nan, 100.1), Metric("odd", math.nan, 101.0), Metric("odd", math.inf, 105.0)]
    metrics.insert_metrics(database, "job", 1, [*said, *odd, Metric("acc", 0.5, 104.0)])
    with database.reading() as connection:
        assert metrics.time_range(connection, MetricQuery("job")) == (100.0, 109.5)
        assert metrics.time_range(connection, MetricQuery("job", "loss", 102.1, 104.0)) == (102.5, 103.5)
        assert metrics.time_range(connection, MetricQuery("job", "nothing")) is None
        found = metrics.sum_up(connection, MetricQuery("job"), 100.0, 4.0)
        part = metrics.sum_up(connection, MetricQuery("job", "loss", 101.0, 103.0), 101.0, 1.0)
    losses = [(it.time, it.mean, it.least, it.most, it.count) for it in found if it.name == "loss"]
    assert losses == [(100.0, 3.5, 0.0, 7.0, 9), (104.0, 11.5, 8.0, 15.0, 8), (108.0, 17.5, 16.0, 19.0, 4)]
    others = [(it.name, it.time, repr(it.mean), it.count) for it in found if it.name != "loss"]
    assert others == [("odd", 100.0, "nan", 1), ("acc", 104.0, "0.5", 1), ("odd", 104.0, "inf", 1)]
    assert [(it.time, it.mean, it.count) for it in part] == [(101.0, 2.5, 2), (102.0, 4.5, 2)]


def test_many_metrics_come_back_in_pages_oldest_first(database):
    add_job(database, "job")
    metrics.insert_metrics(database, "job", 1, [Metric("loss", float(number), float(number)) for number in range(1200)])
    values, token = [], None
    while True:
        with database.reading() as connection:
            found, token = metrics.list_metrics(connection, MetricQuery("job"), 500, token)
        values += [metric.value for metric in found]
        if token is None:
            break
    assert values == [float(number) for number in range(1200)]


def test_a_deleted_job_takes_metrics_events_and_tags_with_it(database):
    record = add_job(database, "job")
    metrics.insert_metrics(database, "job", 1, [Metric("loss", 1.0, 1.0)])
    mark_pending(database, "job", "no room", 2.0)
    with database.transaction() as connection:
        tags.put_tags(connection, record.arn, {"a": "b"})
        training.delete_training_job(connection, record)
    with database.reading() as connection:
        assert metrics.list_metrics(connection, MetricQuery("job"), 10, None) == ([], None)
        assert tags.list_tags(connection, record.arn) == {}
    assert event_kinds(database, record.arn) == []


def test_models_and_configurations_come_back_as_they_were_written(database):
    model = ModelRecord("m", "arn:m", ACCOUNT, {"PrimaryContainer": {"Image": ODD}}, 1.5)
    config = EndpointConfigRecord("c", "arn:c", ACCOUNT, {"ProductionVariants": [{"VariantName": "v"}]}, 2.5)
    with database.transaction() as connection:
        assert hosting.insert_model(connection, model)
        assert not hosting.insert_model(connection, model)
        assert hosting.insert_endpoint_config(connection, config)
        assert not hosting.insert_endpoint_config(connection, config)
    with database.reading() as connection:
        assert hosting.find_model(connection, "m") == model
        assert hosting.list_models(connection, Listing()) == ([model], None)
        assert hosting.find_endpoint_config(connection, "c") == config
        assert hosting.list_endpoint_configs(connection, Listing()) == ([config], None)
    with database.transaction() as connection:
        hosting.delete_model(connection, model)
        hosting.delete_endpoint_config(connection, config)
        assert hosting.find_model(connection, "m") is hosting.find_endpoint_config(connection, "c") is None


def test_an_endpoint_goes_its_way_and_is_gone_at_its_end(database):
    from_source = ResolvedContainer(source=SourceSpec("file:///code", "go.sh"))
    from_image = ResolvedContainer(image="i", environment={"A": "b"}, hostname="h")
    old = Deployment("old", (ResolvedVariant({"VariantName": "v"}, "m", (from_source, from_image)),))
    shadow = ResolvedVariant({"VariantName": "s"}, "m", (from_image,), weight=0.5, instance_count=2)
    new = Deployment("new", old.variants, (shadow,), data_capture={"EnableCapture": True})
    record = transitions.create_endpoint("e", "arn:e", ACCOUNT, old, 1.0)
    with database.transaction() as connection:
        assert hosting.insert_endpoint(connection, record)
        assert not hosting.insert_endpoint(connection, record)
    assert hosting.active_endpoints(database) == [record]
    served = hosting.endpoint_healthy(database, "e", 1, {"v": 2}, 2.0)
    assert (served.status, served.deployed, served.running_counts) == (EndpointStatus.IN_SERVICE, old, {"v": 2})
    with database.transaction() as connection:
        hosting.move_endpoint(connection, "e", lambda endpoint: transitions.update_endpoint(endpoint, new, 3.0))
    events.record_endpoint_event(database, "e", 2, ODD, failed=True, now=3.5)
    events.record_endpoint_event(database, "nobody", 1, "lost", failed=False, now=3.5)
    back = hosting.endpoint_failed(database, "e", 2, ODD, 4.0)
    assert (back.status, back.desired, back.generation) == (EndpointStatus.ROLLING_BACK, old, 3)
    assert hosting.active_endpoints(database)[0].failure_reason == CLEAN
    assert events.last_replica_failure(database, "arn:e", 2) == CLEAN
    assert events.last_replica_failure(database, "arn:e", 1) is None
    hosting.endpoint_gone(database, "e")
    assert event_kinds(database, "arn:e") == [
        "Creating",
        "InService",
        "Updating",
        "Rollout",
        "ReplicaFailed",
        "RollingBack",
    ]
    with database.transaction() as connection:
        hosting.move_endpoint(connection, "e", lambda endpoint: transitions.delete_endpoint(endpoint, 5.0))
    hosting.endpoint_gone(database, "e")
    assert hosting.active_endpoints(database) == []
    assert event_kinds(database, "arn:e") == []
    with pytest.raises(hosting.EndpointMissing):
        hosting.endpoint_healthy(database, "e", 3, {"v": 1}, 6.0)


def test_an_acknowledged_job_survives_the_death_of_its_writer(database, database_url):
    """A process says each name once its insert is committed, and is killed meanwhile: every name said is there."""
    script = textwrap.dedent("""
        import itertools, sys
        from raymaker.platform import transitions
        from raymaker.platform.database import training
        from raymaker.platform.database.engine import BUSY_TIMEOUT_S, Database
        database = Database(sys.argv[1])
        for number in itertools.count():
            record = transitions.create_training_job(f"job-{number}", "arn", "000000000000", {}, float(number))
            with database.transaction() as connection:
                training.insert_training_job(connection, record)
            print(record.name, flush=True)
    """)
    writer = subprocess.Popen([sys.executable, "-c", script, database_url], stdout=subprocess.PIPE, text=True)
    with writer:
        said = [writer.stdout.readline().strip() for _ in range(25)]
        os.kill(writer.pid, signal.SIGKILL)
        said += writer.stdout.read().split("\n")[:-1]
    found = [job.name for job in training.unfinished_training_jobs(database)]
    assert found[: len(said)] == said
    assert len(found) - len(said) in {0, 1}


def test_a_database_that_stays_locked_is_unavailable_and_then_works_again(tmp_path):
    url = f"sqlite:///{tmp_path / 'locked.sqlite3'}"
    holder, other = Database(url), Database(url, lock_timeout_s=0.1)
    holder.migrate()
    with holder.transaction():
        with pytest.raises(ServiceUnavailable, match="locked"):
            add_job(other, "job")
        assert find_job(other, "job") is None
    add_job(other, "job")
    assert find_job(holder, "job").name == "job"
    holder.dispose()
    other.dispose()


def test_a_server_that_is_not_there_is_unavailable():
    database = Database("postgresql://nobody@127.0.0.1:1/none", lock_timeout_s=0.1)
    with pytest.raises(ServiceUnavailable, match="locked or away"), database.reading():
        pass
    database.dispose()


def test_a_connection_that_the_server_ended_is_opened_anew(postgres):
    name = postgres.create_database()
    database = Database(postgres.url(name))
    database.migrate()
    with pytest.raises(ServiceUnavailable, match="could not carry this out"), database.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    add_job(database, "job")
    assert find_job(database, "job").name == "job"
    database.dispose()
    postgres.drop_database(name)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://h/n", "names mysql: use sqlite:///FILE or postgresql"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
    ],
)
def test_a_database_that_is_not_known_here_is_refused(url, said):
    with pytest.raises(ValueError, match=said):
        Database(url)


def test_readers_do_not_wait_for_a_writer(database):
    add_job(database, "job")
    with contextlib.ExitStack() as writing:
        connection = writing.enter_context(database.transaction())
        training.move_training_job(connection, "job", lambda job: transitions.start_attempt(job, 2.0))
        assert find_job(database, "job").attempt == 0
    assert find_job(database, "job").attempt == 1


def test_the_folder_of_the_file_is_made(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'a' / 'b' / 'x.sqlite3'}")
    database.migrate()
    assert (tmp_path / "a" / "b" / "x.sqlite3").is_file()
    database.dispose()


def test_notices_wait_until_they_are_due_and_go_when_they_are_sent(database: Database) -> None:
    job = add_job(database, "noisy")
    with database.transaction() as connection:
        for topic, due_at in (("http://late", 20.0), ("http://soon", 10.0)):
            notices.add_notice(connection, job, topic, {"reason": "naïve “quotes”", "value": 0.5}, due_at)
    assert notices.due_notices(database, 9.0, 5) == []
    (found,) = notices.due_notices(database, 10.0, 5)
    assert (found.job_name, found.topic, found.sent_count) == ("noisy", "http://soon", 0)
    assert found.content == {"reason": "naïve “quotes”", "value": 0.5}
    assert notices.next_due(database) == 10.0
    notices.put_off(database, found, 30.0)
    assert [each.topic for each in notices.due_notices(database, 100.0, 1)] == ["http://late"]
    both = notices.due_notices(database, 100.0, 5)
    assert [(each.topic, each.sent_count) for each in both] == [("http://late", 0), ("http://soon", 1)]
    for each in both:
        notices.forget_notice(database, each)
    assert notices.next_due(database) is None
    assert notices.due_notices(database, 100.0, 5) == []
