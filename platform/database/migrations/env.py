"""Alembic's entry: applies migrations on the connection that `upgrade.py` hands over."""

from __future__ import annotations

from alembic import context

from raymaker.platform.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
