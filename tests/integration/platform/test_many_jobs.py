"""Sixty jobs of two accounts on a small cluster of threads: the real reconciler over both databases, woken by ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from raymaker.actors.reports import JobReport, Outcome
from raymaker.actors.spec import Resources, TrainingSpec
from raymaker.platform import transitions
from raymaker.platform.catalogue import load_catalogue
from raymaker.platform.database import events, training
from raymaker.platform.database.engine import Database
from raymaker.platform.reconcile import Reconciler
from raymaker.platform.records import TrainingJobStatus
from raymaker.platform.room import Queued
from raymaker.platform.settings import Settings
from support.evaluations import NoEvaluators, blind_watch
from support.pools import NoPools

CPUS = 4
LEAVING_S = 0.01
TIMEOUT_S = 60.0
ACCOUNTS = ("111111111111", "222222222222")
REQUEST = {
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "file:///tmp/out"},
    "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1},
}


class Threads(NoEvaluators, NoPools):
    """A fleet whose supervisors are threads: they train, report their end, and leave their room a moment after."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._threads = ThreadPoolExecutor(CPUS + 2)
        self._lock = threading.Lock()
        self._alive: set[tuple[str, int]] = set()
        self.woken = threading.Event()
        self.started: list[str] = []
        self.most_alive = 0

    def supervisors(self) -> frozenset[tuple[str, int]]:
        with self._lock:
            return frozenset(self._alive)

    def free(self) -> Resources:
        return Resources(CPUS - len(self.supervisors()), 64 * 2**30)

    def want(self, waiting: Sequence[Queued]) -> None:
        """This cluster does not grow."""

    def launch(self, spec: TrainingSpec) -> None:
        with self._lock:
            assert (spec.job_name, spec.attempt) not in self._alive
            self._alive.add((spec.job_name, spec.attempt))
            self.most_alive = max(self.most_alive, len(self._alive))
        self.started.append(spec.job_name)
        self._threads.submit(self._run, spec.job_name, spec.attempt)

    def close(self) -> None:
        self._threads.shutdown()

    def _run(self, name: str, attempt: int) -> None:
        training.apply_report(self._database, JobReport(name, attempt, "Training", "trains", time.time()), time.time())
        last = JobReport(name, attempt, "Completed", "done", time.time(), outcome=Outcome.COMPLETED)
        training.apply_report(self._database, last, time.time())
        self.woken.set()
        threading.Event().wait(LEAVING_S)
        with self._lock:
            self._alive.discard((name, attempt))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of either kind."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.dispose()


def test_sixty_jobs_of_two_accounts_end_once_each_in_turns_and_in_order(database: Database) -> None:
    """All of the first account are there before any of the second."""
    names = {account: [f"job-{account[0]}-{number:02}" for number in range(30)] for account in ACCOUNTS}
    with database.transaction() as connection:
        for account in ACCOUNTS:
            for name in names[account]:
                record = transitions.create_training_job(name, f"arn:{name}", account, REQUEST, time.time())
                assert training.insert_training_job(connection, record)
    fleet, settings = Threads(database), Settings()
    reconciler = Reconciler(database, fleet, settings, load_catalogue(settings), blind_watch())  # type: ignore[arg-type]
    deadline = time.monotonic() + TIMEOUT_S
    while training.unfinished_training_jobs(database):
        assert time.monotonic() < deadline, f"{len(fleet.started)} of 60 jobs were started"
        fleet.woken.clear()
        reconciler.step(time.time())
        fleet.woken.wait(LEAVING_S if reconciler.is_hurried else 1.0)
    fleet.close()

    assert fleet.most_alive <= CPUS
    for account in ACCOUNTS:
        assert [name for name in fleet.started if name in names[account]] == names[account]
    assert fleet.started[:CPUS] == ["job-1-00", "job-2-00", "job-1-01", "job-2-01"]
    with database.reading() as connection:
        for name in fleet.started:
            job = training.find_training_job(connection, name)
            assert job is not None
            assert (job.status, job.attempt) == (TrainingJobStatus.COMPLETED, 1)
            told = [event.kind for event in events.list_events(connection, job.arn, 20, None)[0]]
            assert told in (["Starting", "Training", "Completed"], ["Pending", "Starting", "Training", "Completed"])
