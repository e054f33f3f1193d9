"""Transform jobs, and which of their objects are through."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "transform_jobs",
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("arn", sa.Text, nullable=False),
        sa.Column("account", sa.String(12), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("modified_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("stop_requested_at", sa.Double),
        sa.Column("failure_reason", sa.Text),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("model", sa.JSON, nullable=False),
        sa.Column("machines", sa.JSON, nullable=False),
    )
    op.create_index("ix_transform_jobs_created", "transform_jobs", ["created_at", "name"])
    op.create_index("ix_transform_jobs_status", "transform_jobs", ["status", "created_at", "name"])
    op.create_index("ix_transform_jobs_modified", "transform_jobs", ["modified_at"])
    op.create_table(
        "transform_objects",
        sa.Column("job_name", _NAME, sa.ForeignKey("transform_jobs.name", ondelete="CASCADE"), nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("record_count", sa.BigInteger, nullable=False),
        sa.Column("input_bytes", sa.BigInteger, nullable=False),
        sa.Column("output_bytes", sa.BigInteger, nullable=False),
        sa.Column("failure", sa.Text),
        sa.PrimaryKeyConstraint("job_name", "name"),
    )
