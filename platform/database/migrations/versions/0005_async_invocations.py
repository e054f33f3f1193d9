"""Asynchronous invocations that were accepted and are not answered yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from raymaker.platform.database.schema import Name

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "async_invocations",
        sa.Column("id", Name, primary_key=True),
        sa.Column("endpoint_name", Name, nullable=False),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("claim", sa.String(36)),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lost_count", sa.Integer, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("inference_id", sa.Text, nullable=False),
        sa.Column("input_uri", sa.Text),
        sa.Column("body", sa.LargeBinary),
        sa.Column("output_uri", sa.Text, nullable=False),
        sa.Column("failure_uri", sa.Text, nullable=False),
        sa.Column("timeout_s", sa.Double, nullable=False),
        sa.Column("notice", sa.JSON(none_as_null=True)),
    )
    op.create_index("ix_async_invocations_due", "async_invocations", ["endpoint_name", "due_at"])
