"""Endpoints that sleep, the instances that scaled variants shall have, and the load that replicas tell of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from raymaker.platform.database.schema import Name

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("sleep", sa.String(32)))
    op.add_column("endpoints", sa.Column("wanted_counts", sa.JSON, nullable=False, server_default="{}"))
    with op.batch_alter_table("endpoints") as table:
        table.alter_column("wanted_counts", server_default=None)
    op.create_table(
        "endpoint_activity",
        sa.Column("endpoint_name", Name, nullable=False),
        sa.Column("replica_id", Name, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("pending_count", sa.Integer, nullable=False),
        sa.Column("last_request_at", sa.Double, nullable=False),
        sa.Column("latencies", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("endpoint_name", "replica_id"),
    )
