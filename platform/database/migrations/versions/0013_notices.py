"""Notices to webhooks that are still to be sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from raymaker.platform.database.schema import Name, RowId

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("id", RowId, primary_key=True, autoincrement=True),
        sa.Column("job_name", Name, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("sent_count", sa.Integer, nullable=False),
    )
    op.create_index("ix_notices_due", "notices", ["due_at"])
