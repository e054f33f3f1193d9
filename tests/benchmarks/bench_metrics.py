"""A million numbers of one job: kept beside raw inserts of the same rows, summed up beside a raw SELECT of them."""

from __future__ import annotations

import math
import sqlite3
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from raymaker.actors.reports import Metric
from raymaker.platform import transitions
from raymaker.platform.database import metrics, training
from raymaker.platform.database.engine import Database
from raymaker.platform.database.metrics import MetricQuery
from support.measure import median, print_table

COUNT = 1_000_000
NAMES = [f"metric-{number}" for number in range(10)]
BATCH_COUNT = 1000
"""So many numbers an attempt tells at once."""
SLICES = 20
"""Both sides keep their rows in turns, so that neither has the machine to itself."""
ROUNDS = 7
POINTS = 200
START = 1_000_000.0


def main() -> None:
    """Measure and print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        ours, raw = Database(f"sqlite:///{folder}/ours.sqlite3"), open_raw(Path(folder) / "raw.sqlite3")
        ours.migrate()
        add_job(ours)
        keep_all(ours, raw)
        sum_all_up(ours, raw)
        raw.close()
        ours.dispose()


def add_job(database: Database) -> None:
    """Write the record of the job whose numbers they are."""
    record = transitions.create_training_job("job", "arn:job", "0" * 12, {}, START)
    with database.transaction() as connection:
        training.insert_training_job(connection, record)


def open_raw(path: Path) -> sqlite3.Connection:
    """A database with the platform's pragmas, and a table with its columns and keys."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, job_name TEXT, attempt INTEGER, name TEXT, "
        "time DOUBLE, value DOUBLE, step BIGINT, rank INTEGER, source TEXT, UNIQUE (job_name, name, attempt, time))"
    )
    connection.execute("CREATE INDEX ix ON metrics (job_name, id)")
    return connection


def batches(first: int, count: int) -> Iterator[list[Metric]]:
    """Numbers as an attempt tells them: of each name in turn, a millisecond apart."""
    for start in range(first, first + count, BATCH_COUNT):
        yield [
            Metric(NAMES[at % len(NAMES)], math.sin(at / 1e4), START + at / 1e3, step=at, rank=0)
            for at in range(start, start + BATCH_COUNT)
        ]


def keep_all(ours: Database, raw: sqlite3.Connection) -> None:
    """Print how fast both keep all numbers, batch by batch, each batch a transaction."""
    rates: dict[str, list[float]] = {"raw": [], "ours": []}
    share = COUNT // SLICES
    for number in range(SLICES):
        told = list(batches(number * share, share))
        for side, put in (("raw", partial(insert_raw, raw)), ("ours", partial(metrics.insert_metrics, ours, "job", 1))):
            rates[side].append(share / timed(partial(deque, map(put, told), maxlen=0)))
    floor = median(rates["raw"])
    rows = [[name, f"{median(found):,.0f}/s", f"{median(found) / floor:.2f}"] for name, found in rates.items()]
    title = f"{COUNT:,} numbers kept in batches of {BATCH_COUNT}, median of {SLICES} turns"
    print_table(title, ["", "numbers", "of raw inserts"], rows)


def insert_raw(connection: sqlite3.Connection, batch: Sequence[Metric]) -> None:
    """Insert one batch in one transaction."""
    rows = [("job", 1, it.name, it.time, it.value, it.step, it.rank, it.source.value) for it in batch]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT INTO metrics (job_name, attempt, name, time, value, step, rank, source) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        rows,
    )
    connection.execute("COMMIT")


def sum_all_up(ours: Database, raw: sqlite3.Connection) -> None:
    """Print how long it takes to sum ranges up in POINTS periods, beside reading the same rows."""
    rows = []
    for share in (1.0, 0.1):
        until = START + share * COUNT / 1e3
        query = MetricQuery("job", NAMES[0], START, until)
        found: dict[str, list[float]] = {"raw": [], "ours": []}
        for _ in range(ROUNDS):
            found["raw"].append(timed(partial(read_raw, raw, until)))
            found["ours"].append(timed(partial(read_summed, ours, query, until)))
        count = len(read_raw(raw, until))
        floor, took = median(found["raw"]), median(found["ours"])
        rows.append([f"{count:,} numbers", f"{1e3 * floor:.1f} ms", f"{1e3 * took:.1f} ms", f"{took / floor:.2f}"])
    header = ["one metric's", "raw SELECT", f"{POINTS} periods", "of the SELECT"]
    print_table(f"ranges of {COUNT:,} numbers, median of {ROUNDS}", header, rows)


def read_raw(connection: sqlite3.Connection, until: float) -> list[tuple[float, float]]:
    """Read a metric's rows up to a time."""
    statement = "SELECT time, value FROM metrics WHERE job_name = ? AND name = ? AND time >= ? AND time < ?"
    return connection.execute(statement, ("job", NAMES[0], START, until)).fetchall()


def read_summed(database: Database, query: MetricQuery, until: float) -> None:
    """Read the same summed up, as GetTrainingMetrics does."""
    with database.reading() as connection:
        said = metrics.time_range(connection, query)
        assert said is not None
        found = metrics.sum_up(connection, query, said[0], (until - said[0]) / POINTS)
    assert len(found) == POINTS


def timed(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
