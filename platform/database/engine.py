"""The connection to the database: SQLite or PostgreSQL, transactions that wait for their turn, and migration.

What is asked in a transaction is the business of the modules beside this one.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError

from raymaker.platform.database.migrations.upgrade import upgrade
from raymaker.platform.errors import ServiceUnavailable

LOCK_TIMEOUT_S = 10.0
BUSY_TIMEOUT_S = 1.0
"""How long SQLite itself waits for a lock before we try again with jitter, which lets others in between."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.25
POOL: Mapping[str, Any] = {"pool_size": 8, "max_overflow": 24}
"""More than the frontend has threads, so that no request waits for a connection."""
MIGRATION_LOCK = 0x7261796D
"""The key of PostgreSQL's advisory lock, under which one process at a time migrates."""

T = TypeVar("T")


class Database:
    """One database by URL. Cheap to make: nothing is opened before it is used. Safe to use from many threads.

    `lock_timeout_s` is how long a transaction waits for its turn, or for a database that is away, before it gives up.
    """

    def __init__(self, url: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self._url = parse_url(url)
        self._lock_timeout_s = lock_timeout_s
        self._engine = _make_engine(self._url)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._url.get_backend_name()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Read and write as one: durable when the block ends, undone when it raises.

        On SQLite writers take turns, so what was read stays true until the end; on PostgreSQL read with FOR UPDATE.
        Raises ServiceUnavailable when the turn does not come in time or the database is away.
        """
        with self._session("IMMEDIATE") as connection:
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read what is committed, without waiting for writers. Raises ServiceUnavailable as `transaction` does."""
        with self._session("DEFERRED") as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the schema to this version's; several processes may do so at once. Raises SchemaTooNew."""
        if self.dialect == "sqlite":
            self._prepare_sqlite()
        with self.transaction() as connection:
            if self.dialect == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            upgrade(connection)

    def dispose(self) -> None:
        """Close all connections. The next use opens new ones."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _session(self, mode: str) -> Iterator[Connection]:
        connection = self._patiently(lambda: self._begin(mode))
        with contextlib.closing(connection), _unavailable_when_away():
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def _begin(self, mode: str) -> Connection:
        connection = self._engine.connect()
        try:
            connection.execution_options(begin_mode=mode)
            connection.begin()
        except BaseException:
            connection.close()
            raise
        return connection

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try until it works; with jitter, so that those who wait together do not try together."""
        deadline = time.monotonic() + self._lock_timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except OperationalError as error:
                if not _is_passing(error) or time.monotonic() + pause_s > deadline:
                    raise _unavailable(error) from error
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _prepare_sqlite(self) -> None:
        """Make the file, in write-ahead mode: readers and the one writer do not wait for each other."""
        if self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        self._patiently(self._set_wal)

    def _set_wal(self) -> None:
        pragma = "PRAGMA journal_mode=WAL"
        try:
            with contextlib.closing(self._engine.raw_connection()) as connection:
                connection.execute(pragma).close()
        except sqlite3.OperationalError as error:  # the driver's own, since this goes past SQLAlchemy
            raise OperationalError(pragma, None, error) from error


def parse_url(url: str) -> URL:
    """Read a database URL; `postgresql://` means psycopg 3. Raises ValueError for databases that are not known here."""
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise ValueError(f"database URL names {parsed.drivername}: use sqlite:///FILE or postgresql://USER@HOST/NAME")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ValueError("an SQLite database must be a file, since several processes share it: use sqlite:///FILE")
    return parsed


def _make_engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() == "postgresql":
            return create_engine(url, pool_pre_ping=True, **POOL)
    except ModuleNotFoundError as error:
        raise ValueError("PostgreSQL needs its driver: pip install 'raymaker[postgresql]'") from error
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, **POOL)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Set what SQLite keeps per connection.

    synchronous=FULL syncs the write-ahead log at each commit. NORMAL would survive the death of every process too, but
    a power cut could take the last commits back, and a job that was acknowledged must stay acknowledged. It is cheap:
    1.1 ms for a committed job against 0.8 ms with NORMAL (2-core machine).
    """
    connection.isolation_level = None  # the driver's own BEGIN comes too late and is never IMMEDIATE
    connection.execute("PRAGMA synchronous=FULL").close()
    connection.execute("PRAGMA foreign_keys=ON").close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start, where waiting for it is safe; upgrading a read lock later can only fail."""
    mode: Any = connection.get_execution_options().get("begin_mode", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _is_passing(error: OperationalError) -> bool:
    """Tell what time may mend: a lock, or a server that is away."""
    if isinstance(error.orig, sqlite3.Error):
        return error.orig.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return True


def _unavailable(error: OperationalError) -> ServiceUnavailable:
    return ServiceUnavailable(f"The database is locked or away ({error.orig}). Nothing was written; try again.")


@contextlib.contextmanager
def _unavailable_when_away() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise ServiceUnavailable(f"The database could not carry this out ({error.orig}). Try again.") from error
