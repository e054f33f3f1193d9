"""Evaluations of training jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "evaluations",
        sa.Column("job_name", _NAME, sa.ForeignKey("training_jobs.name", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("trigger", sa.String(32), nullable=False),
        sa.Column("checkpoint", sa.Text),
        sa.Column("checkpoint_at", sa.Double),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("failure_reason", sa.Text),
        sa.Column("record_count", sa.Integer, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("distributions", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("job_name", "number"),
    )
    op.create_index("ix_evaluations_status", "evaluations", ["status"])
