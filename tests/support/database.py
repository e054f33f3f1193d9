"""Both databases that the platform knows: a SQLite file, and a private PostgreSQL cluster with a database per test."""

from __future__ import annotations

import getpass
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from support.servers import START_TIMEOUT_S, as_user, find_program, free_port, running_server

_numbers = itertools.count(1)


@dataclass(frozen=True)
class PostgresCluster:
    """A running PostgreSQL cluster that trusts whoever reaches it on loopback."""

    port: int
    user: str

    def wait_until_ready(self) -> None:
        """Wait for the end of its start: it listens before it lets anybody in. Raises psycopg.OperationalError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._execute("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def create_database(self) -> str:
        """Make an empty database and return its name."""
        name = f"raymaker_{next(_numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, and end whatever is still connected to it."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database of this cluster."""
        return f"postgresql+psycopg://{self.user}@127.0.0.1:{self.port}/{database}"

    def _execute(self, statement: str) -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=self.user, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL cluster of this session's own; as root it runs as the account `postgres`."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = [str(folder) for folder in programs]
    initdb = find_program("initdb", *folders, package="postgresql")
    server = find_program("postgres", *folders, package="postgresql")
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="raymaker-postgres-"))  # not below pytest's folder, which only root may enter
    try:
        if user:
            shutil.chown(folder, user, user)
        _init_cluster(initdb, folder / "data", user)
        port = free_port()
        command = [server, "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
        with running_server(command, port, folder / "log", user=user):
            cluster = PostgresCluster(port, user or getpass.getuser())
            cluster.wait_until_ready()
            yield cluster
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'raymaker.sqlite3'}"
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    name = cluster.create_database()
    yield cluster.url(name)
    cluster.drop_database(name)


def _init_cluster(initdb: str, folder: Path, user: str | None) -> None:
    command = [*as_user(user), initdb, "-D", str(folder), "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        pytest.fail(f"initdb could not make a PostgreSQL cluster in {folder}: {done.stderr or done.stdout}")
