"""Runs alembic from inside the package, configured in code: no ini file, so it works from a wheel just as well."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection


class SchemaTooNew(Exception):
    """A later version of this platform has written the database."""


def upgrade(connection: Connection) -> None:
    """Apply what is missing, within the transaction of `connection`. Raises SchemaTooNew."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaTooNew(
            f"this version does not know the database's schema ({error}): use the raymaker that wrote it"
        ) from error
